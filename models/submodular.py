"""Set functions that say how well a few documents stand for all; the more are chosen, the less another adds.

A function is data and a formula; `models/greedy.py` chooses with it. While documents are chosen its `State` tells what
each candidate would add. Gains are computed such that a candidate's never grows as documents are added, not even by
rounding, and such that equal documents have equal gains.

Source: INGENIOUS, arXiv 2305.06677, section 3; the formulas are those of submodlib, which it uses.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from gristmill.models.similarity import Features, Kind, Rows, Similarities, check_features

if TYPE_CHECKING:
    import torch

Gains = npt.NDArray[np.float64]


class State(Protocol):
    """What has been chosen so far, and what each candidate would add."""

    def first_gains(self) -> Gains:
        """Gains of all documents while nothing is chosen, float64[n]."""

    def gains(self, rows: Rows) -> Gains:
        """What each of some documents would add to those chosen, float64[m]."""

    def add(self, row: int) -> None:
        """Choose a document."""


class SetFunction(Protocol):
    """A function of a set of documents, 0 for none."""

    def __len__(self) -> int:
        """Documents to choose from."""

    def start(self, capacity: int, device: str, max_bytes: int) -> State:
        """The state in which nothing is chosen.

        Args:
            capacity: How many will be chosen at most.
            device: Where to compute.
            max_bytes: Of similarities, and what is made of them, at any time.
        """


@dataclass(frozen=True, eq=False)
class FacilityLocation:
    """Sum over all documents of the similarity to the most similar one chosen: monotone and submodular.

    Args:
        features: float32[n, d], finite.
        similarity: From 0 to 1; see `Similarities`.

    Raises:
        ValueError: If a feature is no finite number.
    """

    features: Features
    similarity: Kind = "cosine"

    def __post_init__(self) -> None:
        check_features(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def start(self, capacity: int, device: str, max_bytes: int) -> State:
        """Keeps one number a document: its similarity to the most similar one chosen."""
        return _FacilityLocationState(Similarities(self.features, self.similarity, device, max_bytes))


class _FacilityLocationState:
    def __init__(self, similarities: Similarities) -> None:
        import torch

        self.similarities = similarities
        self.device = similarities.features.device
        self.covered = torch.zeros(len(similarities), device=self.device)

    def first_gains(self) -> Gains:
        return (self.similarities.sums() / self.similarities.unit).cpu().numpy()

    def gains(self, rows: Rows) -> Gains:
        import torch

        parts = self.similarities.row_blocks(torch.from_numpy(rows).to(self.device))
        gains = torch.cat([self._gains(part) for part in parts])
        return (gains / self.similarities.unit).cpu().numpy()

    def _gains(self, rows: "torch.Tensor") -> "torch.Tensor":
        import torch

        gains = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        for columns in self.similarities.columns(len(rows)):
            above = self.similarities.block(rows, columns) - self.covered[columns]
            gains += above.clamp_min_(0).double().sum(dim=1)
        return gains

    def add(self, row: int) -> None:
        import torch

        torch.maximum(self.covered, self.similarities.row(row), out=self.covered)
