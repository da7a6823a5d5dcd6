"""Ablate: proof that a selection teaches.

The same small model is trained from the same seed on as many tokens of each selection and of random documents, and
judged by documents of the target that no model has seen, and by multiple-choice questions. Random documents are trained
on for multiples of that length too, which tells how many of their tokens reach what a selection reaches.

Random documents are drawn from all that are neither blank nor blocked, as in CoLoR-Filter (arXiv 2406.10670), for each
seed anew. The rate stays constant until it decays over the last fifth, so that a longer training goes on from where a
shorter one began to decay: the whole curve of random documents costs half as much again as its longest training.

Each training and its result is committed on its own, and made again only if what it was made from changes.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.models.language_model import SIZES, LanguageModel
from gristmill.models.schedule import WarmupStableDecay
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import CHECKPOINT, FORK, TrainingPlan
from gristmill.pipelines import files
from gristmill.pipelines.ablation_report import FOLDER, Report, Result, result_path, summarise
from gristmill.pipelines.ablation_streams import RANDOM, Pool, count_sequences, read_stream, sample_of
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.evaluate import Evaluation, read_evaluation
from gristmill.pipelines.model_files import claim_folder, digest, localised, work_folder
from gristmill.pipelines.plot_ablations import plot
from gristmill.pipelines.recipe import Ablate, Recipe
from gristmill.pipelines.run_records import recorded
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.train_language_models import bytes_per_token, load_tokenizer, usable
from gristmill.pipelines.train_models import models_of, train_models
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import locked, open_workspace
from gristmill.scorers.base import RecipeError

PLOT = "curves.svg"
SUMMARY = "summary.json"
BUDGET = "budget.json"
WARMUP_SHARE = 0.05
"""Of the steps of the shortest training."""
MIN_STEPS = 20


def ablate(curation: Curation) -> Report:
    """Train and judge what is not there yet, and compare.

    Raises:
        RecipeError: If there is nothing to compare or to judge by, or too little to train on.
        SelectionError: If a selection cannot be made from what is scored.
    """
    recipe = curation.recipe
    _check(recipe)
    workspace = open_workspace(recipe.workspace)
    with locked(workspace), recorded(workspace, "ablate"):
        shards = read_corpus(workspace)
        training = curation.training(workspace, shards, with_target=not recipe.ablate.held_out)
        train_models(training, models_of(recipe, ["tokenizer"]))
        tokenizer = usable("models.tokenizer", lambda: load_tokenizer(training.path("tokenizer")))
        selections = []
        for compiled in curation.selections:
            curation.select(workspace, shards, compiled)
            name, cutter = compiled.selection.name, curation.cutter(compiled)
            selections.append(Pool(workspace, training.shards, name, name, cutter and localised(cutter)))
        evaluation = read_evaluation(curation, training)
        folder = work_folder(workspace, FOLDER)
        num_bytes = bytes_per_token(training, tokenizer)
        ablation = Ablation(training, tokenizer, num_bytes, tuple(selections), evaluation, folder)
        results = ablation.run()
        report = summarise(results)
        workspace.commit_json(report.as_json(), FOLDER, SUMMARY)
        files.commit_bytes(workspace.path(FOLDER, PLOT), plot(results))
        shutil.rmtree(folder, ignore_errors=True)
    return report


def _check(recipe: Recipe) -> None:
    if not recipe.select:
        raise RecipeError(
            "select: the recipe has no selection; expected at least one to compare with random documents"
        )
    if any(selection.name == RANDOM for selection in recipe.select):
        raise RecipeError(f"select: {RANDOM!r} names the random documents of ablations; choose another name")
    if not recipe.target and not recipe.ablate.held_out:
        raise RecipeError("ablate: nothing to judge by; expected `target`, or `ablate.held_out` with a path")
    lines = [
        f"ablate.{kind}.{number}.path: nothing matches {entry.path}; expected a file, a glob or a folder"
        for kind in ("held_out", "tasks")
        for number, entry in enumerate(getattr(recipe.ablate, kind))
        if not files.list_files(entry.path)
    ]
    if lines:
        raise RecipeError("\n".join(lines))


@dataclass(frozen=True)
class Ablation:
    """Trainings that differ by their documents alone.

    Args:
        training: Where corpus and tokenizer are.
        tokenizer: Makes the tokens.
        bytes_per_token: Of it, about.
        selections: The documents of each.
        evaluation: What the models are judged by.
        folder: Local folder for streams and checkpoints.
    """

    training: Training
    tokenizer: Tokenizer
    bytes_per_token: float
    selections: tuple[Pool, ...]
    evaluation: Evaluation
    folder: Path

    @property
    def spec(self) -> Ablate:
        """What the recipe says."""
        return self.training.recipe.ablate

    @cached_property
    def identity(self) -> str:
        """Hash of all that every training is made from, but for its documents and length."""
        said = self.spec.model_dump(mode="json", include={"size", "context", "batch_tokens", "learning_rate"})
        return digest(said, Tokenizer.digest(self.training.path("tokenizer")), self.evaluation.identity)

    def run(self) -> list[Result]:
        """Every training's result, those of earlier runs included; results of other ablations go."""
        workspace = self.training.workspace
        self._clear_folder()
        num_steps = self._num_steps()
        random = replace(self.selections[0], name=RANDOM, cutter=None)
        results = [
            result
            for seed in range(self.spec.seeds)
            for pool in (random, *self.selections)
            for result in self._results(pool, seed, num_steps)
        ]
        wanted = [workspace.path(*result.path) for result in results]
        wanted += [workspace.path(FOLDER, name) for name in (BUDGET, SUMMARY, PLOT)]
        found = [item.path for item in files.list_folder(workspace.path(FOLDER))]
        files.delete([path for path in found if path not in wanted])
        return results

    def _results(self, pool: Pool, seed: int, num_steps: int) -> Iterator[Result]:
        """The results of one pool and seed, from the shortest training to the longest."""
        workspace = self.training.workspace
        multiples = self.spec.multiples if pool.name == RANDOM else [1]
        sample = self._sample(pool, seed, multiples[-1] * num_steps)
        fork = None
        for multiple in multiples:
            folder = self.folder / pool.name / f"{seed}-{multiple}x"
            identity = digest(self.identity, pool.identity, asdict(sample), seed, num_steps, multiple)
            path = result_path(pool.name, seed, multiple)
            known = workspace.read_json(*path)
            if known is None or known["identity"] != identity:
                if fork is not None and fork.is_file() and not (folder / CHECKPOINT).is_file():
                    _start_from(fork, folder)
                stream = read_stream(pool, sample, self.tokenizer, self.folder)
                result = self._train(pool.name, stream, seed, num_steps, multiple, folder)
                known = {**asdict(result), "identity": identity}
                workspace.commit_json(known, *path)
            fork = folder / FORK
            yield Result.from_json(known)

    def _train(
        self,
        name: str,
        stream: npt.NDArray[np.uint32],
        seed: int,
        num_steps: int,
        multiple: int,
        folder: Path,
    ) -> Result:
        schedule = WarmupStableDecay(warmup_steps=max(round(WARMUP_SHARE * num_steps), 1))
        plan = TrainingPlan(
            batch_tokens=self.spec.batch_tokens,
            learning_rate=self.spec.learning_rate,
            schedule=schedule,
            seed=seed,
            num_steps=num_steps * multiple,
        )
        architecture = replace(SIZES[self.spec.size], context=self.spec.context)
        model = usable("ablate", lambda: LanguageModel.make(architecture, self.tokenizer, seed))
        folder.mkdir(parents=True, exist_ok=True)
        title = f"{name} {multiple}x, seed {seed}"
        fork_after = schedule.decay_start(num_steps * multiple)
        fit = partial(self.training.fit, title, model, stream, plan, folder, fork_after=fork_after)
        last = usable("ablate", fit)[-1]
        judged = self.evaluation.judge(model)
        return Result(
            selection=name,
            seed=seed,
            multiple=multiple,
            num_tokens=last.num_tokens,
            epochs=round(
                last.num_tokens / (count_sequences(stream, self.spec.context) * self.spec.context), 3
            ),
            training_loss=last.loss,
            bits_per_byte=judged.bits_per_byte,
            tasks=judged.tasks,
            seconds=round(last.seconds, 3),
        )

    def _sample(self, pool: Pool, seed: int, num_steps: int) -> Sample:
        """Documents for so many steps; of a selection, all of them where the recipe names no number of tokens."""
        if pool.name != RANDOM:
            num_tokens = np.inf if self.spec.tokens is None else self.spec.tokens
            return sample_of(pool, num_tokens * self.bytes_per_token, seed=0)
        return sample_of(pool, num_steps * self.spec.batch_tokens * self.bytes_per_token, seed)

    def _num_steps(self) -> int:
        """Steps of the shortest training: what the recipe's tokens make, or those of the smallest selection."""
        spec, workspace = self.spec, self.training.workspace
        budget: dict[str, Any] = {"selection": "ablate.tokens", "num_tokens": spec.tokens}
        if spec.tokens is None:
            identity = digest(self.identity, [pool.identity for pool in self.selections])
            budget = workspace.read_json(FOLDER, BUDGET)
            if budget is None or budget["identity"] != identity:
                budget = {**self._smallest(), "identity": identity}
                workspace.commit_json(budget, FOLDER, BUDGET)
        tokens_a_step = max(spec.batch_tokens // spec.context, 1) * spec.context
        num_steps = budget["num_tokens"] // tokens_a_step
        if num_steps < MIN_STEPS:
            raise RecipeError(
                f"ablate: {budget['selection']} has {budget['num_tokens']:,} tokens, {num_steps} steps of "
                f"{tokens_a_step:,}; expected at least {MIN_STEPS} steps: select more, or lower ablate.batch_tokens"
            )
        return num_steps

    def _smallest(self) -> dict[str, Any]:
        """The selection with the fewest tokens."""
        lengths = {}
        for pool in self.selections:
            stream = read_stream(pool, self._sample(pool, 0, 0), self.tokenizer, self.folder)
            lengths[pool.name] = count_sequences(stream, self.spec.context) * self.spec.context
        smallest = min(lengths, key=lambda name: lengths[name])
        return {"selection": smallest, "num_tokens": lengths[smallest]}

    def _clear_folder(self) -> None:
        """Forget what an interrupted ablation of other documents or another plan has left."""
        said = self.spec.model_dump(mode="json", include={"tokens", "multiples"})
        identity = digest(self.identity, [pool.identity for pool in self.selections], said)
        claim_folder(self.folder, identity)


def _start_from(fork: Path, folder: Path) -> None:
    """Let a training begin at another one's fork."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f"{CHECKPOINT}.tmp"
    shutil.copyfile(fork, aside)
    os.replace(aside, folder / CHECKPOINT)
