"""Set functions that say how well a few documents stand for all; the more are chosen, the less another adds.

A function is data and a formula; `models/greedy.py` chooses with it. While documents are chosen its `State` tells what
each candidate would add. Gains are computed such that a candidate's never grows as documents are added, not even by
rounding, and such that equal documents have equal gains.

Source: INGENIOUS, arXiv 2305.06677, section 3; the formulas are those of submodlib, which it uses.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from gristmill.models.facility_location import FacilityLocationState
from gristmill.models.similarity import UNIT, Features, Gains, Kind, Rows, Similarities, check_features
from gristmill.models.uncovered import max_list_bytes

if TYPE_CHECKING:
    import torch


class State(Protocol):
    """What has been chosen so far, and what each candidate would add."""

    def all_gains(self) -> Gains | None:
        """What each document would add to those chosen, float64[n], or None where it is cheaper to ask for some.

        Never None while nothing is chosen.
        """

    def gains(self, rows: Rows) -> Gains:
        """What each of some documents would add to those chosen, float64[m]."""

    def add(self, row: int) -> None:
        """Choose a document."""


class SetFunction(Protocol):
    """A function of a set of documents, 0 for none."""

    def __len__(self) -> int:
        """Documents to choose from."""

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """The state in which nothing is chosen.

        Args:
            capacity: How many will be chosen at most.
            device: Where to compute.
            max_bytes: Of similarities, and what is made of them, at any time.
            candidates: What may be chosen, int64[m]; all by default.
        """


@dataclass(frozen=True, eq=False)
class FacilityLocation:
    """Sum over all documents of the similarity to the most similar one chosen: monotone and submodular.

    Args:
        features: float32[n, d], finite.
        similarity: From 0 to 1; see `Similarities`.
        bandwidth: Of `rbf`; by default the mean squared distance of these documents.

    Raises:
        ValueError: If a feature is no finite number.
    """

    features: Features
    similarity: Kind = "cosine"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        check_features(self.features)

    def __len__(self) -> int:
        return len(self.features)

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """Keeps one number a document, its similarity to the most similar one chosen, and the pairs that count."""
        rows = np.arange(len(self)) if candidates is None else np.sort(candidates)
        list_bytes = min(max_list_bytes(len(self), len(rows)), 3 * max_bytes // 4)
        similarities = Similarities(
            self.features, self.similarity, device, max_bytes - list_bytes, bandwidth=self.bandwidth
        )
        if candidates is None:  # else it takes less to compute those of candidates a few times over
            similarities.keep()
        return FacilityLocationState(similarities, rows, list_bytes)


@dataclass(frozen=True, eq=False)
class GraphCut:
    """Similarity of the chosen to all documents, less lambda times that among themselves, pairs counted twice.

    Submodular; monotone only where lambda is at most 1/2, so beyond it greedy choice carries no guarantee.

    Args:
        features: float32[n, d], finite.
        lambda_: At least 0; INGENIOUS uses 0.4.
        similarity: From 0 to 1; see `Similarities`.
        bandwidth: Of `rbf`; by default the mean squared distance of these documents.

    Raises:
        ValueError: If a feature is no finite number, or lambda is negative.
    """

    features: Features
    lambda_: float = 0.4
    similarity: Kind = "cosine"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        check_features(self.features)
        if not self.lambda_ >= 0:
            raise ValueError(f"lambda {self.lambda_} of a graph cut; expected 0 or more")

    def __len__(self) -> int:
        return len(self.features)

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """Keeps two numbers a document: its similarity to all, and to those chosen."""
        similarities = Similarities(
            self.features, self.similarity, device, max_bytes, bandwidth=self.bandwidth
        )
        return _GraphCutState(similarities, self.lambda_)


class _GraphCutState:
    def __init__(self, similarities: Similarities, lambda_: float) -> None:
        self.similarities, self.lambda_ = similarities, lambda_
        self.to_all = similarities.sums().cpu().numpy()
        self.to_chosen = 0.5 * similarities.own().cpu().numpy()

    def all_gains(self) -> Gains:
        return (self.to_all - 2 * self.lambda_ * self.to_chosen) / UNIT

    def gains(self, rows: Rows) -> Gains:
        return self.all_gains()[rows]

    def add(self, row: int) -> None:
        self.to_chosen += self.similarities.row(row).cpu().numpy()


@dataclass(frozen=True, eq=False)
class LogDeterminant:
    """log det(S + lambda I) over the chosen documents: how much they differ. Submodular; monotone from lambda 1 on.

    Cosines are not clipped at 0 here, because that would leave no determinant: S must be positive semidefinite. Gains
    are rounded to 1e-9, so that equal documents tie.

    Args:
        features: float32[n, d], finite.
        lambda_: Above 0; INGENIOUS uses 1.
        similarity: Cosine or RBF; see `Similarities`.
        bandwidth: Of `rbf`; by default the mean squared distance of these documents.

    Raises:
        ValueError: If a feature is no finite number, or lambda is not above 0.
    """

    features: Features
    lambda_: float = 1.0
    similarity: Kind = "cosine"
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        check_features(self.features)
        if not self.lambda_ > 0:
            raise ValueError(f"lambda {self.lambda_} of a log-determinant; expected more than 0")

    def __len__(self) -> int:
        return len(self.features)

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """Keeps 8 bytes for every candidate and every chosen one, a Cholesky factor.

        Raises:
            ValueError: If they do not fit into `max_bytes`.
        """
        rows = np.arange(len(self)) if candidates is None else candidates
        num_bytes = 8 * capacity * len(rows)
        if num_bytes > max_bytes:
            raise ValueError(
                f"choosing {capacity:,} of {len(rows):,} documents by log-determinant holds {num_bytes:,} bytes; "
                f"expected at most {max_bytes:,}: choose in partitions, or allow more"
            )
        similarities = Similarities(
            self.features[rows],
            self.similarity,
            device,
            max_bytes - num_bytes,
            bandwidth=self.bandwidth,
            signed=True,
        )
        places = np.zeros(len(self), np.int64)
        places[rows] = np.arange(len(rows))
        return _LogDeterminantState(similarities, places, self.lambda_, capacity)


class _LogDeterminantState:
    """Incremental Cholesky factor of all candidates against the chosen (fast greedy MAP, arXiv 1709.05135)."""

    def __init__(self, similarities: Similarities, places: Rows, lambda_: float, capacity: int) -> None:
        import torch

        self.places = places
        self.similarities, self.lambda_, self.num_chosen = similarities, lambda_, 0
        device = similarities.features.device
        self.factors = torch.empty(capacity, len(similarities), dtype=torch.float64, device=device)
        self.squares = similarities.own() / UNIT + lambda_

    def all_gains(self) -> Gains:
        return np.round(np.log(self.squares.cpu().numpy()), 9)[self.places]

    def gains(self, rows: Rows) -> Gains:
        return self.all_gains()[rows]

    def add(self, row: int) -> None:
        place = int(self.places[row])
        similar = self.similarities.row(place).double() / UNIT
        similar[place] += self.lambda_
        before = self.factors[: self.num_chosen]
        factor = (similar - before.T @ before[:, place]) / self.squares[place].sqrt()
        self.factors[self.num_chosen] = factor
        self.num_chosen += 1
        self.squares = (self.squares - factor.square()).clamp_min(self.lambda_)


@dataclass(frozen=True, eq=False)
class FeatureCoverage:
    """Sum over features of the square root of what the chosen documents hold of it: monotone and submodular.

    No similarities: time and memory grow with n. For features that count something, such as topics or words.

    Args:
        features: float32[n, d], finite and at least 0.

    Raises:
        ValueError: If a feature is negative or no finite number.
    """

    features: Features

    def __post_init__(self) -> None:
        check_features(self.features)
        negative = np.flatnonzero((self.features < 0).any(axis=1))
        if len(negative):
            raise ValueError(
                f"row {negative[0]} of the features holds a negative number ({len(negative)} rows do); expected "
                "features of at least 0, that count something"
            )

    def __len__(self) -> int:
        return len(self.features)

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """Keeps the sum of each feature over those chosen."""
        import torch

        return _FeatureCoverageState(torch.from_numpy(self.features).to(device), max_bytes)


class _FeatureCoverageState:
    def __init__(self, features: "torch.Tensor", max_bytes: int) -> None:
        import torch

        self.features = features
        width = max(features.shape[1], 1)
        self.num_rows = max(min(2**18, max_bytes // 32) // width, 1)
        self.sums = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)

    def all_gains(self) -> Gains | None:
        return None if self.sums.any() else self.gains(np.arange(len(self.features)))

    def gains(self, rows: Rows) -> Gains:
        import torch

        parts = torch.from_numpy(rows).to(self.features.device).split(self.num_rows)
        return torch.cat([self._gains(part) for part in parts]).cpu().numpy()

    def _gains(self, rows: "torch.Tensor") -> "torch.Tensor":
        # sqrt(sum + added) - sqrt(sum), but every step rounds the same way, so gains shrink as sums grow
        added = self.features.index_select(0, rows).double()
        roots = (self.sums + added).sqrt_().add_(self.sums.sqrt())
        return (added / roots).nan_to_num_(0).sum(dim=1)

    def add(self, row: int) -> None:
        self.sums += self.features[row]
