"""Similarities of documents' features, in blocks, the same to the last bit whatever the block, thread or device.

Features less their mean are rounded to a grid so coarse that every product and every partial sum of a float32 matrix
product is a whole number below 2^24, which float32 holds without error. So a similarity does not depend on what else is
computed with it: two copies of a document tie, and an optimiser that looks at few candidates sees what one that looks
at all sees. The price is an error of cosines of about 1e-4 (standard deviation, any width) times the lengths of both
unit vectors less the mean, which are far below 1 for a language model's mean-pooled states.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Features = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Gains = npt.NDArray[np.float64]
Kind = Literal["cosine", "rbf"]

UNIT = 2.0**24
"""What a similarity of 1 is in the whole numbers computed with: float32 holds all up to here."""
BLOCK = {"cpu": 2**18, "cuda": 2**27}
"""Similarities of one block: what stays in a core's cache, and what fills a GPU."""
BYTES_A_SIMILARITY = 16
"""Of a block: the similarity itself, what is computed from it, and the float64 of sums."""
NUM_SQUARINGS = 6
"""Of the exponential's approximation, which is within 3e-5."""


def check_features(features: Features) -> None:
    """Refuse features that are no table of finite numbers.

    Raises:
        ValueError: If they are not, with the first row that is wrong.
    """
    if features.ndim != 2:
        raise ValueError(f"features of shape {features.shape}; expected one row a document, [n, d]")
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(wrong):
        raise ValueError(
            f"row {wrong[0]} of the features holds NaN or infinity ({len(wrong)} rows do); expected finite numbers: "
            "leave these documents out or score them again"
        )


class Similarities:
    """Similarities between documents, from 0 to 1.

    Cosines below 0 count as 0, and a document of features 0 is similar to nothing, itself included. `rbf` is
    exp(-squared distance / bandwidth), 0 only where it is below 1e-7.

    Args:
        features: float32[n, d], finite.
        kind: `cosine` or `rbf`.
        device: Where to compute.
        max_bytes: Of similarities at any time, features not counted.
        bandwidth: Of `rbf`; by default the mean squared distance of these documents.
        signed: Whether cosines below 0 stay what they are, which keeps their matrix positive semidefinite.
    """

    def __init__(
        self,
        features: Features,
        kind: Kind,
        device: str = "cpu",
        max_bytes: int = 2**30,
        *,
        bandwidth: float | None = None,
        signed: bool = False,
    ) -> None:
        import torch

        self.kind, self.signed, self.max_bytes = kind, signed, max_bytes
        grid, weights, offsets = _to_grid(features, kind, bandwidth)
        self.features = torch.from_numpy(grid).to(device)
        self.weights = torch.from_numpy(weights).to(device)
        self.offsets = torch.from_numpy(offsets).to(device)
        is_zero = ~features.any(axis=1) if kind == "cosine" else np.zeros(len(features), np.bool_)
        self.is_zero = torch.from_numpy(is_zero).to(device)
        self.has_zeros = bool(is_zero.any())
        self.kept: torch.Tensor | None = None
        num_block = BLOCK["cpu" if self.features.device.type == "cpu" else "cuda"]
        self.num_block = max(min(num_block, max_bytes // BYTES_A_SIMILARITY), 1)

    def __len__(self) -> int:
        return len(self.features)

    def keep(self) -> None:
        """Compute all similarities once and keep them, if they fit."""
        import torch

        num_rows = len(self)
        if num_rows == 0 or 4 * num_rows**2 + BYTES_A_SIMILARITY * self.num_block > self.max_bytes:
            return
        kept = torch.empty(num_rows, num_rows, device=self.features.device)
        for rows, columns, block in self._half():
            kept[rows, columns] = block
            kept[columns, rows] = block.T
        self.kept = kept

    def block(self, rows: "torch.Tensor", columns: "slice | torch.Tensor") -> "torch.Tensor":
        """Similarities of some documents to some others.

        Args:
            rows: int64[m].
            columns: A range of length b, or int64[b].

        Returns:
            float32[m, b], whole numbers from 0 to `UNIT`, a copy.
        """
        if self.kept is None:
            return self._compute(rows, columns)
        if isinstance(columns, slice):
            return self.kept[:, columns].index_select(0, rows)
        return self.kept.index_select(0, rows).index_select(1, columns)

    def row(self, row: int) -> "torch.Tensor":
        """Similarities of one document to all, float32[n], in `UNIT`."""
        import torch

        if self.kept is not None:
            return self.kept[row]
        rows = torch.tensor([row], device=self.features.device)
        return torch.cat([self.block(rows, columns)[0] for columns in self.columns(1)])

    def columns(self, num_rows: int) -> Iterator[slice]:
        """All documents, cut into ranges such that a block of so many rows and a range is small enough."""
        step = self._beside(num_rows)
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    def some_columns(self, num_rows: int, columns: "torch.Tensor") -> Iterator["torch.Tensor"]:
        """Documents, cut into parts such that a block of so many rows and a part is small enough."""
        return iter(columns.split(self._beside(num_rows)))

    def row_blocks(self, rows: "torch.Tensor") -> Iterator["torch.Tensor"]:
        """Documents in parts: such that a square block of them is small enough, or whole rows of what is kept."""
        return iter(rows.split(self.side if self.kept is None else self._beside(len(self))))

    def _beside(self, num_others: int) -> int:
        """Documents whose similarities to so many others make a block."""
        return max(self.num_block // max(num_others, 1), 1)

    @property
    def side(self) -> int:
        """Rows of a square block."""
        return int(self.num_block**0.5)

    def _half(self) -> Iterator[tuple[slice, slice, "torch.Tensor"]]:
        """Square blocks with rows, columns and similarities, for pairs of documents once and for some twice."""
        import torch

        rows = torch.arange(len(self), device=self.features.device)
        for start in range(0, len(self), self.side):
            part = slice(start, min(start + self.side, len(self)))
            for first in range(start, len(self), self.side):
                columns = slice(first, min(first + self.side, len(self)))
                yield part, columns, self._compute(rows[part], columns)

    def own(self) -> "torch.Tensor":
        """Similarities of documents to themselves, float64[n], in `UNIT`."""
        import torch

        squares = self.features.square().sum(dim=1)
        own = self._scale(squares, self.weights.square(), self.offsets + self.offsets)
        return torch.where(self.is_zero, 0, own).double()

    def sums(self) -> "torch.Tensor":
        """Sum of each document's similarities to all, float64[n], in `UNIT`."""
        import torch

        sums = torch.zeros(len(self), dtype=torch.float64, device=self.features.device)
        if self.kept is not None:
            for part in self.row_blocks(torch.arange(len(self), device=sums.device)):
                sums[part] = self.kept[int(part[0]) : int(part[-1]) + 1].double().sum(dim=1)
            return sums
        for rows, columns, block in self._half():
            sums[rows] += block.double().sum(dim=1)
            if rows != columns:
                sums[columns] += block.double().sum(dim=0)
        return sums

    def _compute(self, rows: "torch.Tensor", columns: "slice | torch.Tensor") -> "torch.Tensor":
        products = self.features.index_select(0, rows) @ self.features[columns].T
        similar = self._scale(
            products,
            self.weights[rows, None] * self.weights[columns],
            self.offsets[rows, None] + self.offsets[columns],
        )
        if self.has_zeros:
            similar[self.is_zero[rows]] = 0
            similar[:, self.is_zero[columns]] = 0
        return similar

    def _scale(
        self, products: "torch.Tensor", weights: "torch.Tensor", offsets: "torch.Tensor"
    ) -> "torch.Tensor":
        """Similarities from products on the grid, in place, one operation after another so that all devices agree."""
        import torch

        products.mul_(weights)
        if self.kind == "rbf":
            return _exponential(torch.sub(offsets, products, out=products)).mul_(UNIT).round_()
        products.add_(offsets).round_()
        return products if self.signed else products.clamp_min_(0)


def assign(
    features: Features,
    chosen: Rows,
    *,
    kind: Kind = "cosine",
    bandwidth: float | None = None,
    device: str = "cpu",
    max_bytes: int = 2**30,
) -> tuple[Rows, Features]:
    """The chosen document that represents each: the most similar one, the first in `chosen` among equals.

    A chosen document represents itself.

    Args:
        features: float32[n, d], finite.
        chosen: Rows, at least one, int64[k].
        kind: Of similarity.
        bandwidth: Of `rbf`; see `Similarities`.
        device: Where to compute.
        max_bytes: Of similarities at any time.

    Returns:
        The chosen row, int64[n], and the similarity to it from 0 to 1, float32[n].

    Raises:
        ValueError: If nothing is chosen, or features are no finite numbers.
    """
    import torch

    check_features(features)
    if len(chosen) == 0:
        raise ValueError("found no chosen documents to represent the others; expected at least one")
    similarities = Similarities(features, kind, device, max_bytes, bandwidth=bandwidth)
    rows = torch.from_numpy(np.asarray(chosen, np.int64)).to(similarities.features.device)
    best = torch.full((len(features),), -1.0, device=rows.device)
    nearest = torch.zeros(len(features), dtype=torch.int64, device=rows.device)
    for part in similarities.row_blocks(rows):
        for columns in similarities.columns(len(part)):
            block = similarities.block(part, columns)
            places = block.argmax(dim=0)
            values = block.gather(0, places[None])[0]
            better = values > best[columns]
            best[columns] = torch.where(better, values, best[columns])
            nearest[columns] = torch.where(better, part[places], nearest[columns])
    nearest[rows] = rows
    best[rows] = similarities.own()[rows].float()
    scaled = (best / UNIT).clamp_max_(1)
    return nearest.cpu().numpy(), scaled.cpu().numpy()


def mean_squared_distance(features: Features | npt.NDArray[np.float16]) -> float:
    """Of all pairs of documents, those with themselves included: twice the variance.

    Args:
        features: Finite, [n, d], n at least 1.
    """
    return float(2 * features.var(axis=0, dtype=np.float64).sum())


def _to_grid(features: Features, kind: Kind, bandwidth: float | None) -> tuple[Features, Features, Features]:
    """Features on the grid, float32[n, d], and what makes similarities of their products, both float32[n].

    A similarity (cosine), or the exponent of one (rbf), is the product times both documents' weights, added to (cosine)
    or taken from (rbf) the sum of both documents' offsets.
    """
    num_rows, width = features.shape
    scale = UNIT**0.5 - width**0.5 / 2
    if scale < 1:
        raise ValueError(f"features of width {width:,}; expected fewer than a million")
    grid = np.empty((num_rows, width), np.float32)
    lengths, offsets = np.empty(num_rows), np.empty(num_rows)
    center = sum((_vectors(features[part], kind).sum(axis=0) for part in _parts(num_rows)), np.zeros(width))
    center /= max(num_rows, 1)
    for part in _parts(num_rows):
        rest = _vectors(features[part], kind) - center
        lengths[part] = np.linalg.norm(rest, axis=1)
        grid[part] = np.rint(rest * (scale / np.where(lengths[part] > 0, lengths[part], 1))[:, None])
        offsets[part] = (rest * center).sum(axis=1) + center @ center / 2
    if kind == "cosine":
        weights, offsets = lengths * (UNIT**0.5 / scale), offsets * UNIT
    else:
        if bandwidth is None:
            bandwidth = 2 * float(np.mean(lengths**2)) if num_rows else 0.0
        spread = bandwidth or 1.0
        weights, offsets = lengths * ((2 / spread) ** 0.5 / scale), lengths**2 / spread
    return grid, weights.astype(np.float32), offsets.astype(np.float32)


def _vectors(features: Features, kind: Kind) -> npt.NDArray[np.float64]:
    """Features, for cosines at unit length, float64[m, d]."""
    vectors = features.astype(np.float64)
    if kind == "rbf":
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _parts(num_rows: int) -> Iterator[slice]:
    step = 8192
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def _exponential(values: "torch.Tensor") -> "torch.Tensor":
    """exp(-values) for values >= 0, in place, by operations that every device rounds alike.

    exp(-t) is about ((1 - t/2m) / (1 + t/2m))^m, here with m = 64.
    """
    half = values.clamp_min_(0).div_(2 ** (NUM_SQUARINGS + 1))
    above = half + 1
    half.neg_().add_(1).clamp_min_(0).div_(above)
    for _ in range(NUM_SQUARINGS):
        half.square_()
    return half
