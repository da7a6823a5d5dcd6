"""Representative subsets by submodular functions (INGENIOUS): how much each document adds to those chosen before it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal
from uuid import UUID

import pyarrow as pa

from gristmill.scorers.base import Column, CorpusScorer

SOURCE = "INGENIOUS, arXiv 2305.06677, section 3"
MAX_FACTOR = 5000
"""Documents of a partition by log-determinant: the factors of partitions, and of groups that merge, stay below 1 GB."""
NOBODY = UUID(int=0)
"""Stands for the representative of a document without an embedding."""


@dataclass(frozen=True, kw_only=True)
class FacilityLocation(CorpusScorer):
    """Puts the documents in the order in which a greedy algorithm chooses them, within partitions of the corpus.

    Args:
        budget: How large the subset shall be: a share of the documents or tokens, or a whole number of them, of which
            every partition has its part. As many as there are, or more, choose all.
        of: What the budget counts.
        function: What a subset is worth.
        optimizer: How the greedy algorithm finds the next document; `stochastic` looks at a random few.
        similarity: Of two embeddings.
        partitions: Documents are put into partitions by a seeded hash of their doc_id, or by their `cluster`.
        partition_documents: About how many documents make a partition; a worker holds one.
        temperature: The greater, the more alike are the probabilities.
        seed: Of partitions, of the stochastic optimiser and of ties.
        versions: Input -> scorer and fingerprint of what made it; the pipeline fills it in.
        corpus: Identity of all documents; the pipeline fills it in.

    Raises:
        ValueError: If the budget, the temperature or the size of partitions is impossible.
    """

    name: ClassVar[str] = "facility_location"
    version: ClassVar[int] = 2

    budget: int | float = 0.25
    of: Literal["documents", "tokens"] = "documents"
    function: Literal["facility_location", "graph_cut", "log_determinant", "feature_coverage"] = (
        "facility_location"
    )
    optimizer: Literal["lazy", "stochastic"] = "lazy"
    similarity: Literal["cosine", "rbf"] = "cosine"
    partitions: Literal["random", "clusters"] = "random"
    partition_documents: int = 20_000
    temperature: float = 1.0
    seed: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    corpus: str = ""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.budget <= 0 or (isinstance(self.budget, float) and not self.budget <= 1):
            raise ValueError(
                f"budget {self.budget}; expected a share above 0 and at most 1, such as 0.25, "
                "or a whole number, such as 10000"
            )
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature:g}; expected a number above 0")
        if self.partition_documents < 2:
            raise ValueError(f"partition_documents {self.partition_documents}; expected at least 2")
        if self.function == "log_determinant" and self.partition_documents > MAX_FACTOR:
            raise ValueError(
                f"partition_documents {self.partition_documents} with log_determinant, which holds 8 bytes a pair of "
                f"documents; expected at most {MAX_FACTOR}"
            )

    def share_of(self, count: Callable[[], float]) -> float:
        """The budget as a share of all documents or tokens, which are counted only where it is a number of them."""
        return min(self.budget / max(count(), 1), 1.0) if isinstance(self.budget, int) else self.budget

    @property
    def columns(self) -> tuple[Column, ...]:
        """Gain, rank, probability and the nearest representative."""
        return (
            Column(
                name="facility_location_gain",
                type=pa.float64(),
                description="How much the document adds to the value of those of its partition chosen before it",
                unit="value of the function",
                higher_is_better=True,
                source=SOURCE,
            ),
            Column(
                name="facility_location_rank",
                type=pa.int64(),
                description="Place in the order of choice, from 0; places in a partition are stretched over the whole "
                "corpus, so that some are shared; documents without an embedding come last",
                unit="documents",
                minimum=0,
                higher_is_better=False,
                empty="the number of documents",
                source=SOURCE,
                deviation="what partitions chose competes once more, in partitions drawn anew",
            ),
            Column(
                name="facility_location_probability",
                type=pa.float64(),
                description="Second-order Taylor softmax of the partition's gains, times its share of the documents",
                unit="probability",
                minimum=0,
                maximum=1,
                higher_is_better=True,
                source=SOURCE,
                deviation="sums to 1 over the corpus, where the paper draws from each partition",
            ),
            Column(
                name="facility_location_representative",
                type=pa.uuid(),
                description="doc_id of the most similar document of the subset, among about half a partition of them; "
                "its own for those chosen, zero without an embedding",
                unit="doc_id",
                empty=NOBODY,
            ),
            Column(
                name="facility_location_similarity",
                type=pa.float64(),
                description="Similarity to the representative",
                unit="similarity",
                higher_is_better=None,
            ),
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The embedding, and what budgets and partitions need."""
        tokens = ("num_tokens",) if self.of == "tokens" else ()
        return ("embedding", *tokens, *(("cluster",) if self.partitions == "clusters" else ()))
