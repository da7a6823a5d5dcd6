"""Mixture ratio: how much domain text continual pre-training bears before it forgets (arXiv 2407.17467).

The prior goes on training on a share R of the documents that a selection keeps and 1 - R of random documents, for each
R of a small grid, and both losses are taken along the way: that of held-out documents of the domain, as ablations
judge, and that of general documents which neither the prior nor any mixture holds. The critical ratio is the largest R
whose general loss has risen by at most epsilon.

The rate rises to that of the prior's training again and falls by a cosine (arXiv 2403.08763), so a length before the
last is one at which the rate has not come down yet. General documents are drawn from all that are neither blank nor
blocked, those of the domain among them, as a continued training replays its mix.

Each training and its losses are committed on their own, and made again only if what they were made from changes.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property, partial
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models import language_model
from gristmill.models.language_model import LanguageModel, TextLosses
from gristmill.models.training import LogRow, TrainingPlan, order_sequences
from gristmill.pipelines import files
from gristmill.pipelines.ablation_streams import RANDOM, Pool, count_sequences, read_stream, sample_of
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.curate import Curation, recorded
from gristmill.pipelines.evaluate import PASSAGE_CHARS, cut_passages, read_passages, text_losses
from gristmill.pipelines.mixture import choose_datasets
from gristmill.pipelines.mixture_report import (
    FOLDER,
    Observation,
    Report,
    Result,
    result_path,
    summarise,
)
from gristmill.pipelines.model_files import claim_folder, digest, localised, work_folder
from gristmill.pipelines.plot_mixtures import plot
from gristmill.pipelines.recipe import Mixture
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.train_language_models import bytes_per_token, usable
from gristmill.pipelines.train_models import models_of, train_models
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import locked, open_workspace
from gristmill.scorers.base import RecipeError

PLOT = "curves.svg"
SUMMARY = "summary.json"
OBSERVED = "observed.json"
"""Losses of a training that is not finished."""
MIN_STEPS = 20
"""So that the first of the observed lengths is a step, and the last is 20 times as long."""
NUM_PASSAGES = 256
"""About half a megabyte of each kind of text; the report says what error that leaves."""
UNKNOWN = "models.prior.path does not say what the model was trained on; its general loss may be of texts that it knows"
MAX_HELD_OUT = 0.1
"""Share of the general documents that are held out at most."""
HELD_OUT_SURPLUS = 4
"""Documents are held out for so many times the passages, since the prior may have been trained on most of them."""


def find_mixture_ratio(curation: Curation) -> Report:
    """Train and judge what is not there yet, and tell the critical ratio.

    Raises:
        RecipeError: If the recipe has no `mixture`, or there is too little to train on or to judge by.
        SelectionError: If the selection cannot be made from what is scored.
    """
    recipe = curation.recipe
    spec = recipe.mixture
    if spec is None:
        raise RecipeError("mixture: the recipe has none; expected `mixture` with `domain` and `tokens`")
    if not recipe.target and not recipe.ablate.held_out:
        raise RecipeError("mixture: nothing to judge by; expected `target`, or `ablate.held_out` with a path")
    (compiled,) = (found for found in curation.selections if found.selection.name == spec.domain)
    workspace = open_workspace(recipe.workspace)
    with locked(workspace), recorded(workspace, "mixture"):
        shards = read_corpus(workspace)
        training = curation.training(workspace, shards, with_target=not recipe.ablate.held_out)
        train_models(training, models_of(recipe, ["prior"]))
        curation.select(workspace, shards, compiled)
        cutter = curation.cutter(compiled)
        domain = Pool(workspace, training.shards, spec.domain, spec.domain, cutter and localised(cutter))
        general = Pool(workspace, training.shards, RANDOM, spec.domain)
        passages = read_passages(curation, training, NUM_PASSAGES)
        folder = work_folder(workspace, FOLDER)
        mixtures = Mixtures(training, spec, domain, general, passages, folder)
        results = mixtures.run()
        notes = () if mixtures.known is not None else (UNKNOWN,)
        report = replace(summarise(results, spec.epsilon), notes=notes)
        workspace.commit_json(report.as_json(), FOLDER, SUMMARY)
        files.commit_bytes(workspace.path(FOLDER, PLOT), plot(results, report))
        shutil.rmtree(folder, ignore_errors=True)
    return report


@dataclass(frozen=True)
class Mixtures:
    """Trainings of the prior that differ by their share of domain text alone.

    Args:
        training: Where corpus and prior are.
        spec: What the recipe says.
        domain: The documents of the domain.
        general: All documents.
        domain_passages: What the domain loss is of, large_string[p], p > 0.
        folder: Local folder for streams and checkpoints.
    """

    training: Training
    spec: Mixture
    domain: Pool
    general: Pool
    domain_passages: pa.LargeStringArray
    folder: Path

    @cached_property
    def prior(self) -> LanguageModel:
        """The model that goes on; not trained itself."""
        return self._load()

    @property
    def batch_size(self) -> int:
        """Sequences of a step."""
        batch_tokens = self.spec.batch_tokens or self.training.models.prior.batch_tokens
        return max(batch_tokens // self.prior.context, 1)

    @property
    def num_steps(self) -> int:
        """Steps of each training."""
        tokens_a_step = self.batch_size * self.prior.context
        num_steps = self.spec.tokens // tokens_a_step
        if num_steps < MIN_STEPS:
            raise RecipeError(
                f"mixture.tokens: found {self.spec.tokens:,}, {num_steps} steps of {tokens_a_step:,}; expected at "
                f"least {MIN_STEPS} steps: raise it, or lower mixture.batch_tokens"
            )
        return num_steps

    @property
    def plan(self) -> TrainingPlan:
        """How each mixture is trained."""
        return TrainingPlan(
            batch_tokens=self.batch_size * self.prior.context,
            learning_rate=self.spec.learning_rate or self.training.models.prior.learning_rate,
            seed=self.spec.seed,
            num_steps=self.num_steps,
        )

    @cached_property
    def held_out(self) -> Sample:
        """General documents that no mixture holds."""
        num_bytes = HELD_OUT_SURPLUS * NUM_PASSAGES * PASSAGE_CHARS
        sample = sample_of(self.general, num_bytes, self.spec.seed)
        return Sample(sample.seed, sample.low, min(sample.high, MAX_HELD_OUT))

    @cached_property
    def known(self) -> Sample | None:
        """The documents that the prior was trained on, None where nobody says."""
        known = language_model.sample_of(self.training.path("prior"))
        return None if known is None else Sample(*known)

    @cached_property
    def general_passages(self) -> pa.LargeStringArray:
        """What the general loss is of, large_string[p], p > 0: held-out documents that the prior was not trained on."""
        texts = self.general.texts(self.held_out, without=self.known)
        passages = cut_passages((text for array in texts for text in array.to_pylist()), NUM_PASSAGES)
        if not len(passages):
            raise RecipeError(
                "mixture: the prior was trained on all general documents, so none is left to judge by; expected a "
                "larger corpus, or fewer models.prior.tokens"
            )
        return passages

    @cached_property
    def identity(self) -> str:
        """Hash of all that every training is made from, but for its ratio."""
        said = self.spec.model_dump(mode="json", include={"tokens", "points"})
        passages = blake2b(digest_size=16)
        for texts in (self.domain_passages, self.general_passages):
            passages.update(json.dumps(texts.to_pylist()).encode())
        prior = language_model.digest(self.training.path("prior"))
        pools = (self.domain.identity, self.general.identity)
        return digest(said, prior, pools, asdict(self.held_out), repr(self.plan), passages.hexdigest())

    @cached_property
    def points(self) -> list[int]:
        """Steps after which losses are taken, from a twentieth of the training, evenly by their logarithm."""
        steps = np.geomspace(self.num_steps // MIN_STEPS, self.num_steps, self.spec.points)
        found: list[int] = np.unique(steps.round().astype(np.int64)).tolist()
        return found

    @cached_property
    def start(self) -> TextLosses:
        """The losses of the prior on the general passages."""
        return text_losses(self.prior, self.general_passages)

    @cached_property
    def streams(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
        """The tokens of domain and general documents, at least as many as a training takes where there are so many."""
        num_bytes = self.spec.tokens * bytes_per_token(self.training, self.prior.tokenizer)
        domain, general = (
            read_stream(
                pool,
                sample_of(pool, num_bytes, self.spec.seed, low=self.held_out.high),
                self.prior.tokenizer,
                self.folder,
            )
            for pool in (self.domain, self.general)
        )
        for pool, stream in ((self.domain, domain), (self.general, general)):
            if not count_sequences(stream, self.prior.context):
                raise RecipeError(
                    f"mixture: {pool.name} documents have {len(stream):,} tokens; expected more than the "
                    f"{self.prior.context:,} of one sequence"
                )
        return domain, general

    def run(self) -> list[Result]:
        """Every ratio's result, those of earlier runs included; results of other mixtures go."""
        workspace = self.training.workspace
        claim_folder(self.folder, self.identity)
        results = [self._result(ratio) for ratio in self.spec.ratios]
        wanted = [workspace.path(*result_path(result.ratio)) for result in results]
        wanted += [workspace.path(FOLDER, name) for name in (SUMMARY, PLOT)]
        found = [item.path for item in files.list_folder(workspace.path(FOLDER))]
        files.delete([path for path in found if path not in wanted])
        return results

    def _result(self, ratio: int | Fraction) -> Result:
        path = result_path(str(ratio))
        identity = digest(self.identity, str(ratio))
        known = self.training.workspace.read_json(*path)
        if known is None or known["identity"] != identity:
            known = {**asdict(self._train(str(ratio), float(ratio))), "identity": identity}
            self.training.workspace.commit_json(known, *path)
        return Result.from_json(known)

    def _train(self, ratio: str, share: float) -> Result:
        model, context = self._load(), self.prior.context
        numbers = [count_sequences(stream, context) for stream in self.streams]
        stream = join_streams(self.folder / "joined.tokens", *self.streams, context)
        steps = mix_steps(numbers, share, self.batch_size, self.num_steps, self.spec.seed)
        taken = np.concatenate(steps)
        folder = self.folder / ratio.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        observed = _read_observed(folder)

        def observe(row: LogRow) -> None:
            if row.step in self.points:
                observed[row.step] = self._observe(model, row.num_tokens)
                _write_observed(folder, observed)

        fit = partial(self.training.fit, f"{ratio} {self.domain.name}", model, stream, self.plan, folder)
        log = usable("mixture", lambda: fit(steps=steps, after_step=observe))
        num_domain = int((taken < numbers[0]).sum())
        return Result(
            domain=self.domain.name,
            ratio=ratio,
            domain_epochs=round(num_domain / numbers[0], 3),
            general_epochs=round((len(taken) - num_domain) / numbers[1], 3),
            seconds=round(log[-1].seconds, 3),
            observations=(self._observe(self.prior, 0), *(observed[step] for step in self.points)),
        )

    def _load(self) -> LanguageModel:
        return usable("models.prior", lambda: LanguageModel.load(self.training.path("prior")))

    def _observe(self, model: LanguageModel, num_tokens: int) -> Observation:
        domain, general = (
            text_losses(model, texts) for texts in (self.domain_passages, self.general_passages)
        )
        return Observation(
            num_tokens,
            domain_loss=float(domain.nll.sum() / domain.num_tokens.sum()),
            general_loss=float(general.nll.sum() / general.num_tokens.sum()),
            general_error=error_of_mean(general.nll - self.start.nll, general.num_tokens),
        )


def error_of_mean(sums: npt.NDArray[np.float64], numbers: npt.NDArray[np.int64]) -> float:
    """Standard error of the mean over tokens, where passages are drawn and not tokens (a ratio estimate).

    Args:
        sums: Over the tokens of each passage, float64[p], p > 0.
        numbers: Tokens of each passage, int64[p].
    """
    left = sums - numbers * (sums.sum() / numbers.sum())
    return float(np.sqrt(np.square(left).sum() * len(sums) / max(len(sums) - 1, 1)) / numbers.sum())


def join_streams(
    path: Path, domain: npt.NDArray[np.uint32], general: npt.NDArray[np.uint32], context: int
) -> npt.NDArray[np.uint32]:
    """Two streams as one whose first sequences are those of the domain, and then come the general ones; made once.

    The last sequence of the domain ends with the token that the general stream begins with, an end of text.

    Args:
        path: Where it lies.
        domain: Tokens, uint32[d].
        general: Tokens, uint32[g].
        context: Tokens of a sequence.

    Returns:
        The stream, memory-mapped, uint32[t].
    """
    if not path.is_file():
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            domain[: count_sequences(domain, context) * context].tofile(file)
            general.tofile(file)
        aside.rename(path)
    return np.memmap(path, np.uint32, "r")


def mix_steps(
    numbers: Sequence[int], share: float, batch_size: int, num_steps: int, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Which sequences of a joined stream each step takes.

    Domain and general text alternate so that any stretch holds nearly its exact shares; each is seen in a seeded
    permutation, epoch after epoch, whose beginning is the same whatever the share.

    Args:
        numbers: Sequences of the domain, which come first, and general ones.
        share: Of domain text, between 0 and 1.
        batch_size: Sequences of a step.
        num_steps: Steps.
        seed: Of the permutations.
    """
    kinds = choose_datasets(np.arange(num_steps * batch_size), [share, 1 - share], seed)
    sequences = np.empty(len(kinds), np.int64)
    for kind, (first, number) in enumerate(((0, numbers[0]), (numbers[0], numbers[1]))):
        places = np.flatnonzero(kinds == kind)
        epochs = order_sequences(number, max(-(-len(places) // number), 1), seed)
        sequences[places] = first + np.concatenate(epochs)[: len(places)]
    return list(sequences.reshape(num_steps, batch_size))


def _read_observed(folder: Path) -> dict[int, Observation]:
    file = folder / OBSERVED
    if not file.is_file():
        return {}
    return {int(step): Observation(**losses) for step, losses in json.loads(file.read_text()).items()}


def _write_observed(folder: Path, observed: dict[int, Observation]) -> None:
    content = {step: asdict(losses) for step, losses in observed.items()}
    files.commit_bytes(str(folder / OBSERVED), json.dumps(content).encode())
