"""Scores made from other scores: where derived scorers find what they see."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from gristmill.pipelines import files
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import DerivedScorer, Scorer, ScorerError

READ_ROWS = 1 << 16


def with_versions(scorer: DerivedScorer, others: Sequence[Scorer]) -> DerivedScorer:
    """A derived scorer that knows which version of which scorer made each of its inputs.

    Args:
        scorer: With its model trained.
        others: The recipe's scorers of texts.

    Raises:
        ScorerError: If none of them makes an input.
    """
    made = {
        column.name: f"{other.name}/{localised(other).fingerprint()}"
        for other in others
        for column in other.columns
    }
    inputs = localised(scorer).inputs
    if missing := [name for name in inputs if name not in made]:
        raise ScorerError(
            f"{scorer.name}: it is made from {missing[0]}, which no scorer of this recipe makes; add that to `score`"
        )
    return replace(scorer, versions={name: made[name] for name in inputs})  # type: ignore[type-var]


def read_scores(
    workspace: Workspace, shard: str, scorers: Sequence[DerivedScorer]
) -> Iterator[pa.RecordBatch]:
    """The scores of a shard that derived scorers see, batch by batch: doc_id and every input."""
    versions = {name: version for scorer in scorers for name, version in scorer.versions.items()}
    columns: dict[str, pa.ChunkedArray] = {}
    for name, version in sorted(versions.items()):
        scorer, _, fingerprint = version.partition("/")
        with files.open_read(workspace.scores(scorer, fingerprint, shard)) as file:
            found = files.read_table(file, columns=["doc_id", name])
        if columns and found["doc_id"] != columns["doc_id"]:
            raise ScorerError(f"{shard}: scores of {scorer} are not in the order of the others; score again")
        columns |= {column: found[column] for column in found.column_names}
    yield from pa.table(columns).combine_chunks().to_batches(READ_ROWS)
