"""Scores made from other scores: where derived scorers find what they see."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import pyarrow as pa

from gristmill.pipelines import files
from gristmill.pipelines.model_files import localised
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import DerivedScorer, Scorer, ScorerError
from gristmill.scorers.facility_location import FacilityLocation

READ_ROWS = 1 << 16
AnyDerived = TypeVar("AnyDerived", bound=DerivedScorer)


def derived_scorers(
    scorers: Sequence[Scorer], corpus: str
) -> tuple[list[DerivedScorer], list[FacilityLocation]]:
    """The scorers that see other scores, batch by batch or all at once, with what they are made from.

    Args:
        scorers: Of the recipe, their models trained.
        corpus: Identity of all documents.

    Raises:
        ScorerError: If nothing makes an input of one, or a model is not there.
    """
    of_texts = [scorer for scorer in scorers if not isinstance(scorer, DerivedScorer)]
    by_batches = [
        with_versions(scorer, of_texts)
        for scorer in scorers
        if isinstance(scorer, DerivedScorer) and not isinstance(scorer, FacilityLocation)
    ]
    of_corpus = [
        replace(with_versions(scorer, [*of_texts, *by_batches]), corpus=corpus)
        for scorer in scorers
        if isinstance(scorer, FacilityLocation)
    ]
    return by_batches, of_corpus


def require_inputs(scorer: DerivedScorer, others: Sequence[Scorer]) -> None:
    """Refuse a derived scorer that no other scorer feeds.

    Raises:
        ScorerError: Naming the first input that nobody makes.
    """
    made = {column.name for other in others for column in other.columns}
    if missing := [name for name in scorer.inputs if name not in made]:
        raise ScorerError(
            f"{scorer.name}: it is made from {missing[0]}, which no scorer of this recipe makes; add that to `score`"
        )


def with_versions(scorer: AnyDerived, others: Sequence[Scorer]) -> AnyDerived:
    """A derived scorer that knows which version of which scorer made each of its inputs.

    Args:
        scorer: With its model trained.
        others: The scorers that make its inputs, with their models trained.

    Raises:
        ScorerError: If none of them makes an input.
    """
    made = {
        column.name: f"{other.name}/{localised(other).fingerprint()}"
        for other in others
        for column in other.columns
    }
    local = localised(scorer)
    require_inputs(local, others)
    return replace(scorer, versions={name: made[name] for name in local.inputs})  # type: ignore[type-var]


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
