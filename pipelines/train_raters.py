"""Raters of one dimension, trained on texts that humans or a larger model labelled."""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from gristmill.models.encoder_training import BEST, FineTuning, fine_tune
from gristmill.models.load_rater import load_rater
from gristmill.models.rater import Reading
from gristmill.models.rater_quality import RaterQuality
from gristmill.models.rater_training import LabelledTexts, judge, train_head
from gristmill.pipelines.jsonl import field_getter
from gristmill.pipelines.model_files import local_copy
from gristmill.pipelines.recipe_raters import Encoder, RaterModel
from gristmill.pipelines.recipe_values import nearest
from gristmill.pipelines.streams import DamagedStream, read_chunks
from gristmill.pipelines.training import Training
from gristmill.scorers.base import RecipeError

PARTS = ("train", "val", "test")
TRAIN, VAL = 0.8, 0.9
"""Hashes below the first are trained on, those below the second chosen by, the others judged by."""
MAX_CLASSES = 100
FOLLOWS_LENGTH = 0.8
"""Rank correlation with length from which a rater is suspected to measure nothing else."""


@dataclass(frozen=True)
class LabelledText:
    """A record of a file with labels.

    Args:
        text: The text.
        label: A number, or what its class is worth.
        group: What records that must stay together share.
    """

    text: str
    label: float
    group: str


def make_rater(dimension: str, training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train a rater on the labels that the recipe names for its dimension, and judge it by those it never saw."""
    spec, place = training.models.raters.of(dimension), f"models.raters.{dimension}"
    try:
        parts = labelled_parts(spec)
        if spec.encoder is None:
            trained = train_head(dimension, parts["train"], parts["val"], spec.kind)
            trained.head.save(made)
            facts = trained.facts()
        else:
            facts = _fine_tune(dimension, training, spec.encoder, parts, folder, made)
        quality = judge(load_rater(str(made), Reading()), parts["test"])
    except (OSError, ValueError) as error:
        raise RecipeError(f"{place}: {error}") from error
    return {
        "kind": spec.kind,
        **{f"num_{part}": len(parts[part].labels) for part in PARTS},
        **facts,
        "quality": quality.facts(),
        "warnings": [f"{place}: {warning}" for warning in warnings_of(quality)],
    }


def _fine_tune(
    dimension: str,
    training: Training,
    encoder: Encoder,
    parts: dict[str, LabelledTexts],
    folder: Path,
    made: Path,
) -> dict[str, Any]:
    """Fine-tune an encoder under the reporter's eyes, and leave the best epoch; facts for the manifest."""
    plan = FineTuning(**encoder.model_dump(exclude={"path"}))
    started, seen = time.monotonic(), (0, 0)

    def report(step: int, num_tokens: int) -> None:
        nonlocal seen
        seen = step, num_tokens
        training.reporter.update(*seen, time.monotonic() - started)

    path, kind = local_copy(encoder.path), training.models.raters.of(dimension).kind
    start = partial(training.reporter.start_training, dimension)
    scores = fine_tune(path, parts["train"], parts["val"], kind, plan, folder, start, report)
    training.reporter.finish(*seen, time.monotonic() - started)
    shutil.copytree(folder / BEST, made, dirs_exist_ok=True)
    return {"selection": scores}


def labelled_parts(spec: RaterModel) -> dict[str, LabelledTexts]:
    """The texts to train on, to choose by and to judge by.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a record has no such text or label, or there are too many classes.
    """
    if (whole := spec.label_paths().get("whole")) is not None:
        divided = [(part_of(record.group, spec.seed), record) for record in read_labels(whole, spec)]
        records = {part: [record for found, record in divided if found == part] for part in PARTS}
    else:
        records = {part: list(read_labels(path, spec)) for part, path in spec.label_paths().items()}
    num_labels = len({record.label for part in records.values() for record in part})
    if spec.kind == "classification" and num_labels > MAX_CLASSES:
        raise ValueError(
            f"found {num_labels} different labels; expected at most {MAX_CLASSES} classes; say `kind: regression`"
        )
    return {
        part: LabelledTexts(
            pa.array([record.text for record in found], pa.large_string()),
            np.array([record.label for record in found], np.float64),
        )
        for part, found in records.items()
    }


def part_of(group: str, seed: int) -> str:
    """The part of a record, by a hash of its group."""
    found = blake2b(f"{seed}:{group}".encode(errors="surrogatepass"), digest_size=8).digest()
    place = int.from_bytes(found, "big") / 2**64
    return PARTS[(place >= TRAIN) + (place >= VAL)]


def read_labels(path: str, spec: RaterModel) -> Iterator[LabelledText]:
    """The records of a file, in order.

    Raises:
        ValueError: If one cannot be read or has no such text or label: with its line, what was found and expected.
    """
    text_of, label_of = field_getter(spec.text), field_getter(spec.label)
    group_of = text_of if spec.group is None else field_getter(spec.group)
    for number, line in enumerate(_lines(path), start=1):
        try:
            record = orjson.loads(line)
            text = _wanted(record, spec.text, text_of, str)
            label = worth_of(_wanted(record, spec.label, label_of, str | int | float), spec.classes)
            group = _wanted(record, spec.group or spec.text, group_of, str | int)
        except ValueError as error:
            raise ValueError(f"{path}: line {number}: {error}") from error
        yield LabelledText(text, label, str(group))


def worth_of(label: str | float, classes: dict[str, float]) -> float:
    """A label as a number.

    Raises:
        ValueError: If it is a word and no class says what it is worth, or not finite.
    """
    if isinstance(label, str) or classes:
        if str(label) not in classes:
            known = nearest(str(label), classes) if classes else "; `classes` says what each is worth"
            raise ValueError(f"found the label {label!r}, which is no class{known}")
        return classes[str(label)]
    if not math.isfinite(label):
        raise ValueError(f"found the label {label!r}; expected a number")
    return float(label)


def warnings_of(quality: RaterQuality) -> list[str]:
    """What to say of a rater that may measure nothing but length, or that nothing was measured by."""
    if quality.spearman is None:
        return ["its values or the labels it is judged by do not vary, so nothing is known of its quality"]
    if abs(quality.spearman_with_length or 0.0) >= FOLLOWS_LENGTH:
        return [
            f"its values follow the length of texts (rank correlation {quality.spearman_with_length:.2f}), as do its "
            f"labels ({quality.length_alone or 0.0:.2f}); train it on texts of like length to measure more than that"
        ]
    return []


def _wanted(record: Any, name: str, get: Callable[[Any], Any], expected: Any) -> Any:
    if not isinstance(record, dict):
        raise ValueError(f"found {type(record).__name__}; expected an object")
    if not isinstance(found := get(record), expected):
        known = ", ".join(sorted(record)[:10])
        raise ValueError(f"found {found!r} as {name!r} among {known}; expected {_title(expected)}")
    return found


def _title(expected: Any) -> str:
    return "a string" if expected is str else "a string or a number"


def _lines(path: str) -> Iterator[bytes]:
    """Lines of a file, plain or compressed, without blank ones at its end."""
    try:
        content = b"".join(read_chunks(path))
    except DamagedStream as error:
        raise ValueError(f"{path}: damaged ({error}); fetch it again") from error
    yield from content.rstrip().split(b"\n")
