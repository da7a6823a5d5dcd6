"""Scores made from other scores: where derived scorers find what they see."""

from collections.abc import Iterator, Mapping, Sequence
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


def split_derived(scorers: Sequence[Scorer]) -> tuple[list[DerivedScorer], list[FacilityLocation]]:
    """The scorers that see other scores: batch by batch, or all at once."""
    derived = [scorer for scorer in scorers if isinstance(scorer, DerivedScorer)]
    of_corpus = [scorer for scorer in derived if isinstance(scorer, FacilityLocation)]
    return [scorer for scorer in derived if not isinstance(scorer, FacilityLocation)], of_corpus


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
    by_batches, of_corpus = split_derived(scorers)
    by_batches = [with_versions(scorer, of_texts) for scorer in by_batches]
    makers = [*of_texts, *by_batches]
    return by_batches, [replace(with_versions(scorer, makers), corpus=corpus) for scorer in of_corpus]


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
    made: dict[str, str] = {}
    for other in others:
        version = f"{other.name}/{localised(other).fingerprint()}"
        made |= dict.fromkeys((column.name for column in other.columns), version)
    local = localised(scorer)
    require_inputs(local, others)
    return replace(scorer, versions={name: made[name] for name in local.inputs})  # type: ignore[type-var]


def read_scores(
    workspace: Workspace, shard: str, scorers: Sequence[DerivedScorer]
) -> Iterator[pa.RecordBatch]:
    """The scores of a shard that derived scorers see, batch by batch: doc_id and every input."""
    versions = {name: version for scorer in scorers for name, version in scorer.versions.items()}
    yield from read_columns(workspace, shard, versions).to_batches(READ_ROWS)


def read_columns(workspace: Workspace, shard: str, versions: Mapping[str, str]) -> pa.Table:
    """Scores of one shard, in its order: doc_id and some columns, each file read once.

    Args:
        workspace: Where they lie.
        shard: Its name.
        versions: Column -> scorer and fingerprint of what made it, as in `DerivedScorer`.

    Raises:
        ScorerError: If two scorers are not in one order.
    """
    names_of_files: dict[str, list[str]] = {}
    for name, version in sorted(versions.items()):
        names_of_files.setdefault(version, []).append(name)
    columns: dict[str, pa.ChunkedArray] = {}
    for version, names in names_of_files.items():
        scorer, _, fingerprint = version.partition("/")
        with files.open_read(workspace.scores(scorer, fingerprint, shard)) as file:
            found = files.read_table(file, columns=["doc_id", *names])
        if columns and found["doc_id"] != columns["doc_id"]:
            raise ScorerError(f"{shard}: scores of {scorer} are not in the order of the others; score again")
        columns |= {column: found[column] for column in found.column_names}
    return pa.table(columns).combine_chunks()
