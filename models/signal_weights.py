"""A weighted sum of quality signals (Meta-rater): each signal brought to one scale, turned so that higher is better.

    Q(x) = sum over signals of weight * scaled(x), scaled to [0, 5]

Signals have names, directions and scales of their own, stored with the weights: nothing depends on an order of columns.
Source: Meta-rater, arXiv 2504.14194, section 3, and its released code.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.float64]
Normalisation = Literal["quantile", "min_max"]

FILE = "weights.json"
TOP = 5.0
"""The best value of a scaled signal; the worst is 0, and so is one that is missing."""
NUM_QUANTILES = 40


@dataclass(frozen=True)
class Signal:
    """One signal on its scale.

    Args:
        name: Score column.
        weight: At least 0.
        higher_is_better: Its better end.
        values: Ascending values of the column, at least one.
        scaled: What each is on the scale, ascending, from 0 to 5; between two of them it is interpolated.
    """

    name: str
    weight: float
    higher_is_better: bool
    values: tuple[float, ...]
    scaled: tuple[float, ...]

    def scale(self, column: Numbers) -> Numbers:
        """A column of n values, NaN where missing, on the scale from 0 (worst or missing) to 5 (best), float64[n]."""
        scaled = np.interp(column, self.values, self.scaled)
        if not self.higher_is_better:
            scaled = TOP - scaled
        return np.where(np.isnan(column), 0.0, scaled)


def to_numbers(column: pa.Array | pa.ChunkedArray) -> Numbers:
    """A column of n numbers or flags, NaN where missing, float64[n]."""
    numbers: Numbers = pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False)
    return numbers


def digest(folder: Path) -> str:
    """Hash of the weights in a folder."""
    return hashlib.blake2b((folder / FILE).read_bytes(), digest_size=16).hexdigest()


def fit_signal(name: str, column: Numbers, *, higher_is_better: bool, normalisation: Normalisation) -> Signal:
    """Learn a signal's scale from values of its column.

    Args:
        name: Score column.
        column: Values, NaN where missing, float64[n].
        higher_is_better: Its better end.
        normalisation: `min_max` is the paper's: the smallest is 0, the largest 5, so that one outlier decides where all
            others lie. `quantile` is the share of values below, an equal one counting half, times 5.

    Raises:
        ValueError: If no value is a finite number.
    """
    found = np.sort(column[np.isfinite(column)])
    if len(found) == 0:
        raise ValueError(
            f"{name}: found no number among {len(column)} values; expected a signal of this corpus"
        )
    if found[0] == found[-1]:
        values, scaled = found[:1], np.array([TOP / 2])
    elif normalisation == "min_max":
        values, scaled = found[[0, -1]], np.array([0, TOP])
    else:
        places = np.round(np.linspace(0, len(found) - 1, NUM_QUANTILES + 1)).astype(np.int64)
        values = np.unique(found[places])
        below = np.searchsorted(found, values, "left") + np.searchsorted(found, values, "right")
        scaled = TOP * below / (2 * len(found))
    return Signal(name, 0.0, higher_is_better, tuple(values.tolist()), tuple(scaled.tolist()))


@dataclass(frozen=True)
class SignalWeights:
    """Signals and their weights.

    Args:
        signals: At least one, each with a name of its own.
    """

    signals: tuple[Signal, ...]

    @property
    def names(self) -> list[str]:
        """The score columns it is made from."""
        return [signal.name for signal in self.signals]

    def scale(self, columns: Mapping[str, Numbers]) -> Numbers:
        """Columns of n values as scaled signals, float64[n, d]."""
        return np.stack([signal.scale(columns[signal.name]) for signal in self.signals], axis=1)

    def contributions(self, columns: Mapping[str, Numbers]) -> Numbers:
        """What each signal adds to the sum, float64[n, d]."""
        return self.scale(columns) * np.array([signal.weight for signal in self.signals])

    def save(self, folder: Path) -> None:
        """Write `weights.json`."""
        content = [vars(signal) for signal in self.signals]
        (folder / FILE).write_text(json.dumps(content, indent=1))

    @classmethod
    def load(cls, folder: Path) -> "SignalWeights":
        """Read `weights.json`.

        Raises:
            ValueError: If it is not there or does not hold signals.
        """
        path = folder / FILE
        try:
            entries = json.loads(path.read_text())
            signals = tuple(
                Signal(
                    name=entry["name"],
                    weight=float(entry["weight"]),
                    higher_is_better=bool(entry["higher_is_better"]),
                    values=tuple(map(float, entry["values"])),
                    scaled=tuple(map(float, entry["scaled"])),
                )
                for entry in entries
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}: no signal weights ({error!r}); expected those of `meta_rater`"
            ) from error
        if not signals or min(signal.weight for signal in signals) < 0:
            raise ValueError(f"{path}: found weights below 0, or none; turn the signal's direction instead")
        return cls(signals)
