"""How well a classifier tells held-out positives from negatives, and whether its probabilities mean what they say."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

NUM_BINS = 10
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bin:
    """Documents of like probability.

    Args:
        low: Smallest probability that falls into the bin; the largest is below that of the next one.
        count: Documents.
        mean_probability: Their mean probability, 0 where there is none.
        share_positive: The share of them that is positive, 0 where there is none.
    """

    low: float
    count: int
    mean_probability: float
    share_positive: float


@dataclass(frozen=True)
class Quality:
    """Quality of a classifier of two classes.

    Args:
        auc: The chance that a positive gets a higher probability than a negative; 0.5 is chance.
        brier: Mean squared difference of probability and truth; 0.25 for a classifier that always says a half.
        expected_calibration_error: Mean difference of probability and share of positives, bin by bin, in documents.
        bins: Ten bins of equal width.
    """

    auc: float
    brier: float
    expected_calibration_error: float
    bins: tuple[Bin, ...]


def quality(positive: Probabilities, negative: Probabilities) -> Quality:
    """Judge a classifier by the probabilities it gives to documents it was not trained on.

    Calibration is that of the classes as they are given: another share of positives needs other probabilities.

    Args:
        positive: Probabilities of positives, in [0, 1], float64[p], p > 0.
        negative: Probabilities of negatives, float64[n], n > 0.
    """
    probability = np.concatenate([positive, negative])
    truth = np.repeat([1.0, 0.0], [len(positive), len(negative)])
    bins = np.minimum((probability * NUM_BINS).astype(np.int64), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    mean, share = (
        np.bincount(bins, values, NUM_BINS) / np.maximum(counts, 1) for values in (probability, truth)
    )
    return Quality(
        auc=area_under_roc(positive, negative),
        brier=float(np.square(probability - truth).mean()),
        expected_calibration_error=float(np.average(np.abs(mean - share), weights=counts)),
        bins=tuple(
            Bin(number / NUM_BINS, *row)
            for number, row in enumerate(zip(counts.tolist(), mean.tolist(), share.tolist(), strict=True))
        ),
    )


def area_under_roc(positive: Probabilities, negative: Probabilities) -> float:
    """The chance that a positive scores higher than a negative, equal ones counting half.

    Args:
        positive: Scores on any scale, float64[p], p > 0.
        negative: float64[n], n > 0.
    """
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, "left") + np.searchsorted(ordered, positive, "right")
    return float(below.mean() / 2 / len(negative))
