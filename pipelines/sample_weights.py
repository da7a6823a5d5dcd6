"""Sampling by loss: draw documents without replacement, those of some losses more often than others.

The weights are those of `models.loss_weights` (arXiv 2502.06733), which the paper recomputes for each batch; here a
reference model's losses, computed once, weigh the draw. Each document has a standard exponential number E that depends
on doc_id and seed alone; the documents with the least E / weight are a sample without replacement whose first is any
document with a probability proportional to its weight, whose second is any other, and so on (Efraimidis and Spirakis
2006), which is a Gumbel top-k in other words. Keys are ln(E / weight), which no temperature overflows. Where all losses
are alike, the same documents come first as in a sample without weights.
"""

from gristmill.models.loss_weights import MIN_SPREAD
from gristmill.pipelines.recipe_select import LossWeights

FAVOURS = {
    "lin_upper": "least({h} + 1, 1)",
    "quadratic": "1 - {h} * {h}",
    "extremes": "abs({h})",
}
SMALLEST = 2.0**-53
"""The random number that stands for 0, whose logarithm is not finite; the next larger one."""
LEAST_WEIGHT = 1e-300
"""Stands for a weight of 0 or less, whose logarithm is not finite."""


def log_weight(weights: LossWeights, loss: str, low: float, high: float) -> str:
    """SQL for the logarithm of a document's weight, up to a constant.

    Args:
        weights: How losses weigh.
        loss: SQL for the document's loss, or its weight where that is `proportional`, DOUBLE, finite.
        low: The least loss of all documents that compete.
        high: The greatest.
    """
    if weights.function == "proportional":
        return f"ln(greatest({loss}, {_double(LEAST_WEIGHT)})) / {_double(weights.temperature)}"
    middle, half = low / 2 + high / 2, max(high / 2 - low / 2, MIN_SPREAD / 2)
    favour = FAVOURS[weights.function].format(h=f"(({loss} - {_double(middle)}) / {_double(half)})")
    return f"({favour}) / {_double(weights.temperature)}"


def sampling_key(weights: LossWeights, loss: str, uniform: str, low: float, high: float) -> str:
    """SQL for the number by which documents are sampled, the least first.

    Args:
        weights: How losses weigh.
        loss: SQL for the document's loss, DOUBLE, finite.
        uniform: SQL for the document's seeded random number, in [0, 1).
        low: The least loss of all documents that compete.
        high: The greatest.
    """
    exponential = f"-ln(1 - greatest({uniform}, {_double(SMALLEST)}))"
    return f"(ln({exponential}) - {log_weight(weights, loss, low, high)})"


def _double(number: float) -> str:
    return f"'{number!r}'::DOUBLE"
