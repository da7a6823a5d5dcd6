"""The target: what the trained model should be good at, ingested as a corpus of its own below the workspace."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from gristmill.pipelines.jsonl import field_getter
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

BLANK = re.compile(r"(?<!\w)_(?!\w)")


HELD_OUT = 0.1
"""Share of the target's documents that no model is trained on: by them models and selections are judged."""
MIN_DIVIDED = 20
"""Documents of a target from which some are held out; of fewer every one is needed."""


def held_out_sample(shards: Sequence[Shard]) -> Sample:
    """The documents of a target that are held out."""
    is_divided = sum(shard.num_rows for shard in shards) >= MIN_DIVIDED
    return Sample(seed=0, low=0.0, high=HELD_OUT if is_divided else 0.0)


def target_workspace(workspace: Workspace, entries: Sequence[Target], folder: str = "target") -> Workspace:
    """Where the documents of a target lie; a recipe that names another target finds nothing of the one before."""
    said = [entry.as_input().model_dump(mode="json", exclude={"licence"}) for entry in entries]
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=8).hexdigest()
    return Workspace(workspace.path(folder, digest))


def target_texts(
    workspace: Workspace, shards: Sequence[Shard], entries: Sequence[Target]
) -> Iterator[pa.RecordBatch]:
    """The target's documents as the models see them.

    Args:
        workspace: The target's own.
        shards: Its shards.
        entries: The recipe's entries, for their sources' rules.

    Yields:
        Batches with doc_id and text, without the records that `only` leaves out.

    Raises:
        RecipeError: If a question has no such answer.
    """
    rules = {entry.source: entry for entry in entries}
    plain = all(not entry.only and entry.choices is None for entry in entries)
    for shard in shards:
        for batch in read_batches(workspace, shard.name):
            batch = batch.select(["doc_id", "text", "source", "metadata"])
            yield (batch if plain else _apply(batch, rules)).select(["doc_id", "text"])


def _apply(batch: pa.RecordBatch, rules: dict[str, Target]) -> pa.RecordBatch:
    kept, texts = [], []
    for row, text, fields in records(batch):
        rule = rules[fields["source"]]
        if is_wanted(fields, rule):
            kept.append(row)
            texts.append(text if rule.choices is None else answered(text, fields, rule))
    taken = batch.take(pa.array(kept, pa.int64()))
    return taken.set_column(1, "text", pa.array(texts, pa.large_string()))


def records(batch: pa.RecordBatch) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Row, text and other fields of each record."""
    columns = (batch[name].to_pylist() for name in ("text", "source", "metadata"))
    for row, (text, source, metadata) in enumerate(zip(*columns, strict=True)):
        yield row, text, json.loads(metadata or "{}") | {"source": source}


def is_wanted(fields: dict[str, Any], rule: Target) -> bool:
    """Whether a record has the values that `only` names."""
    return all(str(field_getter(name)(fields)) == value for name, value in rule.only.items())


def answers_of(fields: dict[str, Any], rule: Target) -> tuple[list[str], int]:
    """The possible answers of a record, and the number of the right one.

    Raises:
        RecipeError: If the record has no such answer.
    """
    choices, answer = (field_getter(str(name))(fields) for name in (rule.choices, rule.answer))
    number = int(answer) if str(answer).isdecimal() else -1
    if not (isinstance(choices, list) and 0 <= number < len(choices)):
        raise RecipeError(
            f"{rule.source}: {rule.path}: a record has {rule.choices}={choices!r} and {rule.answer}={answer!r}; "
            "expected a list of answers and the number of the right one, from 0"
        )
    return [str(choice) for choice in choices], number


def answered(question: str, fields: dict[str, Any], rule: Target) -> str:
    """A question with its correct answer, as a fluent continuation.

    Raises:
        RecipeError: If the record has no such answer.
    """
    choices, number = answers_of(fields, rule)
    right = choices[number]
    filled, num_blanks = BLANK.subn(lambda _: right, question, count=1)
    return filled if num_blanks else f"{question} {right}"
