"""How much of a domain continual pre-training bears: the critical mixture ratio (CMR, arXiv 2407.17467).

A model that goes on training on a share R of domain text and 1 - R of general text gains on the domain and may lose
on general text. R is feasible if the general loss has risen by at most epsilon; the largest such R is the critical one.

Along T tokens, the paper fits the domain loss as a power law and the general loss as the sum of two, for it rises first
and falls later; at a fixed T the general loss is a power law of R again. Beyond what was observed nothing is claimed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, least_squares

Numbers = npt.NDArray[np.float64]

EPSILON = 0.05
"""Nats that the general loss may rise by; the paper's."""
NUM_STARTS = 12
EXPONENT = 3.0
"""The largest size of an exponent that is tried."""


@dataclass(frozen=True)
class PowerLaw:
    """offset + the sum of scale * x ** exponent over terms, where x is in units of the largest that was observed.

    Args:
        scales: One a term.
        exponents: One a term.
        offset: Added to all.
        unit: The largest x observed.
        low: The smallest x observed.
        error: Root mean square of what the fit leaves, in the unit of the losses.
    """

    scales: tuple[float, ...]
    exponents: tuple[float, ...]
    offset: float
    unit: float
    low: float
    error: float

    def __call__(self, x: float) -> float:
        """The value at x.

        Raises:
            ValueError: If x lies beyond what was observed.
        """
        if not self.low <= x <= self.unit:
            raise ValueError(
                f"found {x:g}, observed from {self.low:g} to {self.unit:g}; expected a value between, for the fit says "
                "nothing beyond"
            )
        terms = zip(self.scales, self.exponents, strict=True)
        return self.offset + sum(scale * (x / self.unit) ** exponent for scale, exponent in terms)


@dataclass(frozen=True)
class CriticalRatio:
    """The largest feasible share of domain text.

    Args:
        ratio: The share, or the bound of what was observed.
        bound: `=`; `>` if every observed ratio is feasible, `<` if none is.
        error: Root mean square by which the fit misses the observed rises, in nats.
    """

    ratio: float
    bound: str
    error: float


def fit_power_law(
    x: Sequence[float], losses: Sequence[float], num_terms: int = 1, *, seed: int = 0
) -> PowerLaw:
    """Fit a sum of power laws by least squares, non-linear in the exponents, the best of several seeded starts.

    Args:
        x: Tokens, or ratios; above 0, at least one more than the law has parameters.
        losses: One at each.
        num_terms: 1 for the domain loss and for ratios, 2 for the general loss along tokens.
        seed: Of the starts.

    Raises:
        ValueError: If there are too few points, or one is not above 0.
    """
    points, wanted = np.asarray(x, np.float64), np.asarray(losses, np.float64)
    num_parameters = 2 * num_terms + 1
    if len(np.unique(points)) <= num_parameters or (points <= 0).any():
        raise ValueError(
            f"found {len(np.unique(points))} different points, the smallest {points.min(initial=np.inf):g}; expected "
            f"more than {num_parameters}, all above 0"
        )
    scaled = points / points.max()
    rng = np.random.default_rng(seed)
    fits = [
        least_squares(
            lambda exponents: _best(scaled, wanted, exponents)[1],
            rng.uniform(-EXPONENT, EXPONENT, num_terms),
            bounds=(-EXPONENT, EXPONENT),
        )
        for _ in range(NUM_STARTS)
    ]
    exponents = min(fits, key=lambda fit: fit.cost).x
    factors, left = _best(scaled, wanted, exponents)
    return PowerLaw(
        scales=tuple(factors[:-1].tolist()),
        exponents=tuple(exponents.tolist()),
        offset=float(factors[-1]),
        unit=float(points.max()),
        low=float(points.min()),
        error=float(np.sqrt(np.mean(left**2))),
    )


def critical_ratio(
    ratios: Sequence[float], rises: Sequence[float], epsilon: float = EPSILON
) -> CriticalRatio:
    """The largest share of domain text whose general loss has risen by at most epsilon.

    Args:
        ratios: Shares of domain text that were trained, above 0, ascending, at least 4.
        rises: General loss of each at the same number of tokens, less that of the start, in nats.
        epsilon: What may be lost, in nats.

    Raises:
        ValueError: If there are too few ratios.
    """
    law = fit_power_law(ratios, rises)
    low, high = law.low, law.unit
    if law(high) <= epsilon:
        return CriticalRatio(high, ">", law.error)
    if law(low) > epsilon:
        return CriticalRatio(low, "<", law.error)
    return CriticalRatio(_crossing(law, epsilon, low, high), "=", law.error)


def _crossing(law: Callable[[float], float], level: float, low: float, high: float) -> float:
    return float(brentq(lambda x: law(x) - level, low, high))


def _best(x: Numbers, wanted: Numbers, exponents: Numbers) -> tuple[Numbers, Numbers]:
    """Scales and offset that fit best with these exponents, by linear least squares, and what they leave."""
    columns = np.c_[x[:, None] ** exponents, np.ones(len(x))]
    factors = np.linalg.lstsq(columns, wanted, rcond=None)[0].astype(np.float64)
    return factors, columns @ factors - wanted
