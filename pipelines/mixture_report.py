"""What mixtures of domain and general text tell: changes of both losses, and the critical ratio (arXiv 2407.17467)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from gristmill.models.mixture_law import CriticalRatio, PowerLaw, critical_ratio, fit_power_law
from gristmill.scorers.base import QueryError

FOLDER = "mixtures"
MIN_INTERIOR = 4
"""Lengths whose critical ratio lies among the observed ones, from which a law is fitted: it has three parameters."""


@dataclass(frozen=True)
class Observation:
    """Both losses at one length of a training.

    Args:
        num_tokens: Trained on so far, 0 for the model that goes on.
        domain_loss: Of the held-out documents of the domain, in nats a token.
        general_loss: Of the held-out general documents, in nats a token.
        general_error: Standard error of the change of the general loss since the start, over held-out passages.
    """

    num_tokens: int
    domain_loss: float
    general_loss: float
    general_error: float


@dataclass(frozen=True)
class Result:
    """One training on a mixture.

    Args:
        domain: The selection whose documents are the domain.
        ratio: Share of domain text, as the recipe writes it.
        domain_epochs: Times that it saw the documents of the domain.
        general_epochs: Times that it saw its general documents.
        seconds: Of training and judging.
        observations: From 0 tokens to the last.
    """

    domain: str
    ratio: str
    domain_epochs: float
    general_epochs: float
    seconds: float
    observations: tuple[Observation, ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Result":
        """What was committed."""
        fields = {name: value for name, value in content.items() if name != "identity"}
        return cls(**fields | {"observations": tuple(Observation(**row) for row in fields["observations"])})

    @property
    def share(self) -> float:
        """Share of domain text."""
        return float(Fraction(self.ratio))

    @property
    def lengths(self) -> list[int]:
        """Tokens of the observations after the start."""
        return [observation.num_tokens for observation in self.observations[1:]]

    @property
    def domain_changes(self) -> list[float]:
        """Domain loss less that of the start, of the observations after it."""
        first, *others = self.observations
        return [observation.domain_loss - first.domain_loss for observation in others]

    @property
    def general_changes(self) -> list[float]:
        """General loss less that of the start, of the observations after it."""
        first, *others = self.observations
        return [observation.general_loss - first.general_loss for observation in others]


def result_path(ratio: str) -> tuple[str, str]:
    """Where one training's result lies in a workspace."""
    return FOLDER, f"ratio-{ratio.replace('/', '-')}.json"


@dataclass(frozen=True)
class Curve:
    """What one ratio does over its whole training.

    Args:
        ratio: Share of domain text, as the recipe writes it.
        num_tokens: Length of the training.
        domain_epochs: Times that it saw the documents of the domain.
        domain_change: Of the domain loss at the end, in nats a token.
        general_change: Of the general loss at the end, in nats a token.
        general_error: Standard error of that change, over held-out passages.
        is_feasible: Whether the general loss has risen by at most epsilon at the end.
        domain_law: Of the domain change along tokens.
        general_law: Of the general change along tokens.
    """

    ratio: str
    num_tokens: int
    domain_epochs: float
    domain_change: float
    general_change: float
    general_error: float
    is_feasible: bool
    domain_law: PowerLaw
    general_law: PowerLaw


@dataclass(frozen=True)
class Critical:
    """The critical ratio at one length.

    Args:
        num_tokens: The length.
        found: The ratio, or its bound.
    """

    num_tokens: int
    found: CriticalRatio


@dataclass(frozen=True)
class Report:
    """What all mixtures tell together.

    Args:
        domain: The selection whose documents are the domain.
        epsilon: What the general loss may rise by, in nats a token.
        curves: One a ratio, ascending.
        critical: One a length, ascending.
        law: Of the critical ratio along tokens; None where too few lengths have one among the observed ratios.
        notes: What else to know.
    """

    domain: str
    epsilon: float
    curves: tuple[Curve, ...]
    critical: tuple[Critical, ...]
    law: PowerLaw | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What is written beside the results."""
        return asdict(self)

    def table(self) -> list[dict[str, Any]]:
        """Rows to print, one a ratio."""
        return [
            {
                "domain share": curve.ratio,
                "tokens": curve.num_tokens,
                "domain epochs": f"{curve.domain_epochs:.2g}",
                "domain loss": f"{curve.domain_change:+.4f}",
                "domain fit error": f"{curve.domain_law.error:.4f}",
                "general loss": f"{curve.general_change:+.4f} ± {curve.general_error:.4f}",
                "general fit error": f"{curve.general_law.error:.4f}",
                "feasible": curve.is_feasible,
            }
            for curve in self.curves
        ]

    def critical_table(self) -> list[dict[str, Any]]:
        """Rows to print, one a length."""
        return [
            {
                "tokens": row.num_tokens,
                "critical ratio": as_text(row.found),
                "fit error": f"{row.found.error:.4f}",
            }
            for row in self.critical
        ]

    def verdict(self) -> str:
        """The critical ratio of the whole training, in a sentence that claims nothing more."""
        last = self.critical[-1]
        return (
            f"at {last.num_tokens:,} tokens the critical ratio of {self.domain} is {as_text(last.found)} "
            f"(epsilon {self.epsilon:g} nats, fit error {last.found.error:.4f}); nothing is claimed beyond"
        )

    def at(self, num_tokens: int) -> str:
        """The critical ratio at another length, by the law along tokens.

        Raises:
            QueryError: If the length is beyond what was observed, or there is no law.
        """
        if self.law is None:
            interior = sum(row.found.bound == "=" for row in self.critical)
            raise QueryError(
                f"{interior} observed lengths have a critical ratio among those trained; expected at least "
                f"{MIN_INTERIOR} for a law along tokens: choose other `mixture.ratios`, or more `mixture.points`"
            )
        try:
            ratio = self.law(num_tokens)
        except ValueError as error:
            raise QueryError(f"the critical ratio at {num_tokens:,} tokens: {error}") from error
        return (
            f"at {num_tokens:,} tokens: {ratio:.3g} by the law along tokens (fit error {self.law.error:.4f})"
        )


def as_text(found: CriticalRatio) -> str:
    """`0.31`, `> 0.75` or `< 0.125`."""
    return f"{'' if found.bound == '=' else found.bound + ' '}{found.ratio:.3g}"


def summarise(results: Sequence[Result], epsilon: float) -> Report:
    """Fit the laws, and solve for the critical ratio at each length.

    The general loss along tokens has two terms, for it rises first and may fall later; the domain loss has one.

    Args:
        results: One a ratio, ascending, at least 4, of the same lengths, at least 6.
        epsilon: What the general loss may rise by, in nats a token.
    """
    curves = tuple(
        Curve(
            ratio=result.ratio,
            num_tokens=result.lengths[-1],
            domain_epochs=result.domain_epochs,
            domain_change=result.domain_changes[-1],
            general_change=result.general_changes[-1],
            general_error=result.observations[-1].general_error,
            is_feasible=result.general_changes[-1] <= epsilon,
            domain_law=fit_power_law(result.lengths, result.domain_changes),
            general_law=fit_power_law(result.lengths, result.general_changes, num_terms=2),
        )
        for result in results
    )
    shares = [result.share for result in results]
    rises = zip(*(result.general_changes for result in results), strict=True)
    critical = tuple(
        Critical(num_tokens, critical_ratio(shares, of_length, epsilon))
        for num_tokens, of_length in zip(results[0].lengths, rises, strict=True)
    )
    interior = [row for row in critical if row.found.bound == "="]
    law = None
    if len(interior) >= MIN_INTERIOR:
        law = fit_power_law([row.num_tokens for row in interior], [row.found.ratio for row in interior])
    return Report(results[0].domain, epsilon, curves, critical, law)
