"""Predictive strength (PreSelect, Shum et al. 2025, arXiv 2503.00808): which documents tell good models from bad.

seeds      = documents of the most frequent hosts that no rung was trained on
losses     = bits per character of every seed under every rung of the ladder
strength   = share of the pairs of rungs in which the better one has the smaller loss
classifier = fastText, documents of strength 1 against as many of the least strength

The losses come from the score stage, on the seeds as a corpus of their own, so that they are sharded, resumed and kept
like any scores: a rung that joins the ladder later is the only one scored then. The launcher holds 8 bytes a seed and
rung, and the texts that the classifier is trained on. Where the released code lets context leak from document to
document, windows stay inside; where a class is too large, a seeded part of it is taken, so that both are of equal size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.models.classifier_quality import quality
from gristmill.models.classifier_training import POSITIVE, train_classifier
from gristmill.models.language_model import context_of
from gristmill.models.seed_set import id_bytes, save_seed_set
from gristmill.models.strength import predictive_strength
from gristmill.models.text_classifier import FILE, TextClassifier
from gristmill.pipelines import files
from gristmill.pipelines.model_files import STRENGTHS_FILE, local_copy, localised
from gristmill.pipelines.recipe_models import PredictiveStrengthModel
from gristmill.pipelines.sample_texts import Sample, join_texts
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.seed_documents import SeedRule, gather_seeds
from gristmill.pipelines.train_ladder import OrderedRung, inversions, read_ladder
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError
from gristmill.scorers.bits_per_character import BitsPerCharacter
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.schema import STRENGTHS

WINDOW, STRIDE = 1901, 512
"""Tokens, of the paper's released code; where the rungs see less at once, in the same proportion."""
HELD_OUT = 0.1
"""Share of the classifier's documents that it is judged by."""
HELD_OUT_SEED = 1 << 35
MIN_HELD_OUT = 10
"""Documents of each class by which a classifier can be judged."""
MAX_AT_ENDS = 0.6
"""Share of the documents at strength 0, or at 1, above which a ladder hardly tells documents apart."""


@dataclass(frozen=True)
class Labels:
    """What the classifier is trained on and judged by, of n documents.

    Args:
        positive: Of strength 1, bool[n].
        negative: As many of the least strength, bool[n].
        held_out: Judged by and not trained on, bool[n].
    """

    positive: npt.NDArray[np.bool_]
    negative: npt.NDArray[np.bool_]
    held_out: npt.NDArray[np.bool_]


def make_predictive_strength(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Measure the strength of the seed documents, and train a classifier of the strong against the weak."""
    spec = training.models.predictive_strength
    rungs = read_ladder(training.workspace, training.models.ladder.rungs)
    seen = sorted({astuple(rung.sample) for rung in rungs if rung.sample is not None})
    samples = tuple(Sample(*sample) for sample in seen)
    rule = SeedRule(spec.hosts, spec.documents_per_host, spec.seed, samples)
    seeds, shards = gather_seeds(training, rule)
    if not shards:
        raise RecipeError(
            "models.predictive_strength: the corpus holds no document that no rung was trained on; expected a larger "
            "corpus, or rungs of fewer tokens"
        )
    documents = pa.concat_tables(_read(seeds.documents(shard.name)) for shard in shards)
    losses = np.stack(
        [rung_losses(training, seeds, shards, scorer) for scorer in rung_scorers(rungs, spec)], 1
    )
    strength = predictive_strength(losses)
    keys = random_keys(documents["doc_id"], spec.seed)
    labels = label(strength, keys, random_keys(documents["doc_id"], HELD_OUT_SEED + spec.seed))
    _write_strengths(made, documents, losses, strength, labels)
    facts = _train_classifier(seeds, shards, labels, spec, made)
    mean_bits = _mean_bits(documents, losses, strength)
    titles = [rung.title for rung in rungs]
    warnings = end_warnings(strength) + inversions(
        "the ladder's order", "bits per character of the seed documents", titles, mean_bits
    )
    return facts | {
        "rungs": [
            {
                "rung": rung.title,
                "average": rung.average,
                "task_loss": rung.task_loss,
                "bits_per_character": bits,
            }
            for rung, bits in zip(rungs, mean_bits, strict=True)
        ],
        "num_seed_documents": len(documents),
        "num_without_strength": int(np.isnan(strength).sum()),
        "warnings": warnings,
    }


def rung_scorers(rungs: Sequence[OrderedRung], spec: PredictiveStrengthModel) -> list[BitsPerCharacter]:
    """The scorers that measure the losses, with windows of as many tokens for every rung."""
    context = min(context_of(local_copy(rung.path)) for rung in rungs)
    window = min(WINDOW, context) if spec.window is None else spec.window
    stride = max(window * STRIDE // WINDOW, 1) if spec.stride is None else spec.stride
    if window > context or stride > window:
        raise RecipeError(
            f"models.predictive_strength: found a window of {window} tokens and a stride of {stride}; expected at most "
            f"{context}, all that the smallest rung sees at once, and no larger stride"
        )
    return [BitsPerCharacter(model=rung.path, window=window, stride=stride) for rung in rungs]


def rung_losses(
    training: Training, seeds: Workspace, shards: Sequence[Shard], scorer: BitsPerCharacter
) -> npt.NDArray[np.float64]:
    """Bits per character of n seed documents under one rung, float64[n]."""
    training.score(seeds, shards, [scorer])
    fingerprint = localised(scorer).fingerprint()
    tables = [_read(seeds.scores(scorer.name, fingerprint, shard.name)) for shard in shards]
    found: npt.NDArray[np.float64] = pa.concat_tables(tables)["bits_per_character"].to_numpy()
    return found


def label(
    strength: npt.NDArray[np.float64], keys: npt.NDArray[np.float64], held_out: npt.NDArray[np.float64]
) -> Labels:
    """Choose the classifier's documents: those of strength 1, and as many from 0 upwards.

    Where fewer are below 1 than at 1, a seeded choice of the latter is taken, so that both classes are of equal size.

    Args:
        strength: In [0, 1], NaN where there is none, float64[n].
        keys: Random numbers that break ties, float64[n].
        held_out: Random numbers in [0, 1) that hold documents out, float64[n].

    Raises:
        RecipeError: If no document is at 1, or none below.
    """
    num_positive, num_negative = int((strength == 1).sum()), int((strength < 1).sum())
    if not num_positive or not num_negative:
        raise RecipeError(
            f"models.predictive_strength: {num_positive:,} seed documents are of strength 1 and {num_negative:,} "
            "below; expected some of each: order the rungs the other way, or take rungs that differ more, or less"
        )
    count = min(num_positive, num_negative)
    order = np.lexsort((keys, strength))  # NaN comes last
    positive, negative = np.zeros((2, len(strength)), np.bool_)
    negative[order[:count]] = True
    positive[order[num_negative : num_negative + count]] = True
    return Labels(positive, negative, held_out < HELD_OUT)


def end_warnings(strength: npt.NDArray[np.float64]) -> list[str]:
    """What to say of a ladder that gives most documents the same strength."""
    known = strength[~np.isnan(strength)]
    return [
        f"models.ladder: {share:.0%} of the seed documents are of strength {end}; such a ladder hardly tells documents "
        "apart: more rungs, or rungs that are closer to each other, would"
        for end in (0, 1)
        if (share := float((known == end).mean())) > MAX_AT_ENDS
    ]


def _train_classifier(
    seeds: Workspace, shards: Sequence[Shard], labels: Labels, spec: PredictiveStrengthModel, made: Path
) -> dict[str, Any]:
    """Train the classifier, and judge it by what was held out where that is enough."""
    is_judged = all(
        (of_class & labels.held_out).sum() >= MIN_HELD_OUT for of_class in (labels.positive, labels.negative)
    )
    held_out = labels.held_out & is_judged
    positives, negatives = (
        join_texts(_texts(seeds, shards, of_class & ~held_out))
        for of_class in (labels.positive, labels.negative)
    )
    try:
        train_classifier(
            positives,
            negatives,
            str(made / FILE),
            epoch=spec.epoch,
            seed=spec.seed,
            zero_end_of_line=spec.zero_end_of_line,
        )
    except (ValueError, RuntimeError) as error:
        raise RecipeError(f"models.predictive_strength: {error}") from error
    facts: dict[str, Any] = {
        "num_positives": len(positives),
        "num_negatives": len(negatives),
        "quality": None,
    }
    if is_judged:
        classifier = TextClassifier.load(made / FILE)
        probabilities = (
            classifier.probability(join_texts(_texts(seeds, shards, of_class & held_out)), POSITIVE)
            for of_class in (labels.positive, labels.negative)
        )
        facts["quality"] = asdict(quality(*(values.astype(np.float64) for values in probabilities)))
    return facts


def _texts(
    seeds: Workspace, shards: Sequence[Shard], wanted: npt.NDArray[np.bool_]
) -> Iterator[pa.LargeStringArray]:
    """The texts of some seed documents, an array a batch; `wanted` is in the order of the shards."""
    start = 0
    for shard in shards:
        for batch in read_batches(seeds, shard.name):
            yield batch["text"].filter(pa.array(wanted[start : start + len(batch)]))
            start += len(batch)


def _mean_bits(
    documents: pa.Table, losses: npt.NDArray[np.float64], strength: npt.NDArray[np.float64]
) -> list[float]:
    """Bits per character of each rung over the characters of all documents that have a strength."""
    num_chars = np.where(np.isnan(strength), 0, documents["num_chars"].to_numpy())
    bits = np.nansum(losses * num_chars[:, None], axis=0) / max(num_chars.sum(), 1)
    found: list[float] = bits.tolist()
    return found


def _write_strengths(
    made: Path,
    documents: pa.Table,
    losses: npt.NDArray[np.float64],
    strength: npt.NDArray[np.float64],
    labels: Labels,
) -> None:
    """One row a seed document, and their set for the scorer."""
    n, num_rungs = losses.shape
    names = np.select([labels.positive, labels.negative], ["positive", "negative"], "")
    offsets = pa.array(np.arange(n + 1) * num_rungs, pa.int32())
    columns = [
        documents["doc_id"],
        documents["source"],
        documents["host"],
        documents["num_chars"],
        pa.array(strength, pa.float64(), mask=np.isnan(strength)),
        pa.ListArray.from_arrays(offsets, pa.array(losses.ravel(), mask=np.isnan(losses.ravel()))),
        pa.array(names, pa.string(), mask=names == ""),
        pa.array(labels.held_out & (names != "")),
    ]
    pq.write_table(pa.table(columns, schema=STRENGTHS), made / STRENGTHS_FILE, compression="zstd")
    save_seed_set(made, np.concatenate([id_bytes(chunk) for chunk in documents["doc_id"].chunks]))


def _read(path: str) -> pa.Table:
    with files.open_read(path) as file:
        return files.read_table(file)
