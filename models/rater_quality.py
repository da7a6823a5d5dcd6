"""How well a rater's values and classes agree with labels, and whether it only measures length."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import rankdata

from gristmill.models.classifier_quality import area_under_roc

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RaterQuality:
    """Agreement with the labels of n texts; None where labels or values do not vary.

    Args:
        num_texts: n.
        spearman: Rank correlation of value and label.
        auc: The chance that a text of the higher of two labels gets a higher value; None for more labels.
        macro_f1: Mean over the classes of the F1 of the likeliest class; None for a regression.
        spearman_with_length: Rank correlation of value and length in words.
        length_alone: Rank correlation of length and label: what a rater that sees nothing but length reaches.
        length_alone_auc: The same as the chance that two labels are ordered, 0.5 or more; None for more labels.
    """

    num_texts: int
    spearman: float | None
    auc: float | None
    macro_f1: float | None
    spearman_with_length: float | None
    length_alone: float | None
    length_alone_auc: float | None

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return asdict(self)


def rater_quality(
    values: Numbers, labels: Numbers, lengths: Numbers, likeliest: Numbers | None = None
) -> RaterQuality:
    """Judge a rater by texts that it was not trained on.

    Args:
        values: Its values, float64[n].
        labels: float64[n].
        lengths: Of the texts, in words, float64[n].
        likeliest: What its likeliest class is worth, float64[n]; None for a regression.
    """
    length_auc = auc(lengths, labels)
    return RaterQuality(
        num_texts=len(labels),
        spearman=spearman(values, labels),
        auc=auc(values, labels),
        macro_f1=None if likeliest is None else macro_f1(likeliest, labels),
        spearman_with_length=spearman(values, lengths),
        length_alone=spearman(lengths, labels),
        length_alone_auc=None if length_auc is None else max(length_auc, 1 - length_auc),
    )


def spearman(first: Numbers, second: Numbers) -> float | None:
    """Rank correlation, equal values sharing their mean rank; None where one side does not vary."""
    ranks = [rankdata(side) for side in (first, second)]
    if any(len(side) == 0 or np.ptp(side) == 0 for side in ranks):
        return None
    return float(np.corrcoef(*ranks)[0, 1])


def auc(values: Numbers, labels: Numbers) -> float | None:
    """Area under the ROC curve of the higher of two labels; None unless there are two."""
    found = np.unique(labels)
    if len(found) != 2:
        return None
    return area_under_roc(values[labels == found[1]], values[labels == found[0]])


def macro_f1(likeliest: Numbers, labels: Numbers) -> float:
    """Mean F1 over the classes that occur among n > 0 labels or were given."""
    scores = []
    for worth in np.union1d(likeliest, labels):
        hits = np.sum((likeliest == worth) & (labels == worth))
        scores.append(2 * hits / (np.sum(likeliest == worth) + np.sum(labels == worth)))
    return float(np.mean(scores))


def word_counts(texts: pa.LargeStringArray) -> Numbers:
    """Words of n texts, float64[n]."""
    return (
        pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)))
        .to_numpy()
        .astype(np.float64)
    )
