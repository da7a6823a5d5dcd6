"""Trains the linear head of a rater from labelled texts, and judges it; `rater_head` is what uses it.

One convex problem for each strength of regularisation, from strong to weak, each from the solution before. The strength
is chosen by macro-F1 (classes) or Spearman (regression) on texts of their own, as Meta-rater chooses its checkpoints
(arXiv 2504.14194); the head is not trained again on them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse
from scipy.optimize import minimize

from gristmill.models.bag_of_words import Rarity, count_words
from gristmill.models.rater import Rater
from gristmill.models.rater_head import RaterHead, softmax
from gristmill.models.rater_quality import RaterQuality, macro_f1, rater_quality, spearman, word_counts

PENALTIES = (1e-3, 1e-4, 1e-5, 1e-6)
MAX_STEPS = 100

Kind = Literal["classification", "regression"]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with what a human or a model says of them.

    Args:
        texts: n texts.
        labels: float64[n].
    """

    texts: pa.LargeStringArray
    labels: Numbers


@dataclass(frozen=True)
class TrainedHead:
    """A head and how it was chosen.

    Args:
        head: The head.
        penalty: The chosen strength of regularisation.
        choices: Strength -> macro-F1 or Spearman on the texts it was chosen by.
    """

    head: RaterHead
    penalty: float
    choices: dict[float, float]

    def facts(self) -> dict[str, Any]:
        """For a manifest."""
        return {
            "penalty": self.penalty,
            "selection": {f"{key:g}": value for key, value in self.choices.items()},
        }


def train_head(name: str, train: LabelledTexts, val: LabelledTexts, kind: Kind) -> TrainedHead:
    """Train a head for each strength of regularisation and take the best, the stronger of equals.

    The same texts give the same head.

    Args:
        name: Of its value.
        train: What it learns from.
        val: What the strength is chosen by.
        kind: Softmax over the classes, each worth its label, or a regression.

    Raises:
        ValueError: If a part has no text, or the labels do not vary.
    """
    check_parts(train, val)
    counts = count_words(train.texts)
    rarity = Rarity.of(counts)
    features = rarity.weigh(counts)
    columns = np.flatnonzero(rarity.weights)
    classes = tuple(np.unique(train.labels).tolist()) if kind == "classification" else None
    best: tuple[float, float, RaterHead] | None = None
    choices = {}
    for penalty, weights, bias in _solutions(features[:, columns], train.labels, classes):
        dense = np.zeros((len(rarity.weights), len(bias)), np.float32)
        dense[columns] = weights
        head = RaterHead(name, classes, rarity, dense, bias)
        choices[penalty] = score = selection_score(head, val)
        if best is None or score > best[0]:
            best = score, penalty, head
    assert best is not None
    return TrainedHead(best[2], best[1], choices)


def check_parts(train: LabelledTexts, val: LabelledTexts) -> None:
    """Refuse labels that teach nothing.

    Raises:
        ValueError: If a part has no text, or the labels to learn from do not vary.
    """
    for part, found in (("train", train), ("val", val)):
        if len(found.labels) == 0 or (part == "train" and np.ptp(found.labels) == 0):
            raise ValueError(
                f"found {len(found.labels)} texts of {len(np.unique(found.labels))} labels in the part {part!r}; "
                "expected texts in each part, and at least two different labels to learn from"
            )


def judge(rater: Rater, texts: LabelledTexts) -> RaterQuality:
    """The quality of a rater by texts that it was not trained on."""
    values, likeliest = _rated(rater, texts.texts)
    return rater_quality(values, texts.labels, word_counts(texts.texts), likeliest)


def selection_score(rater: Rater, val: LabelledTexts) -> float:
    """What a rater is chosen by: macro-F1 of the likeliest classes, or Spearman of a regression."""
    values, likeliest = _rated(rater, val.texts)
    return macro_f1(likeliest, val.labels) if likeliest is not None else spearman(values, val.labels) or 0.0


def _rated(rater: Rater, texts: pa.LargeStringArray) -> tuple[Numbers, Numbers | None]:
    """Values, and what the likeliest class is worth."""
    ratings = rater.rate(texts)
    values = ratings.values[:, 0].astype(np.float64)
    if rater.classes is None or ratings.probabilities is None:
        return values, None
    return values, np.array(rater.classes)[ratings.probabilities.argmax(axis=1)]


def _solutions(
    features: sparse.csr_matrix, labels: Numbers, classes: tuple[float, ...] | None
) -> Iterator[tuple[float, Numbers, Numbers]]:
    """Penalty, weights, float64[b, k], and bias, float64[k], of each problem, from strong to weak.

    The labels of a regression are standardised, so that a penalty means the same for all.
    """
    mean, scale = (0.0, 1.0) if classes else (labels.mean(), labels.std())
    targets = (
        (labels[:, None] == np.array(classes)).astype(np.float64)
        if classes
        else (labels[:, None] - mean) / scale
    )
    num_features, num_outputs = features.shape[1], targets.shape[1]
    transposed = features.T.tocsr()

    def loss(parameters: Numbers, penalty: float) -> tuple[float, Numbers]:
        table = parameters.reshape(num_features + 1, num_outputs)
        outputs = features @ table[:-1] + table[-1]
        if classes:
            top = outputs.max(axis=1, keepdims=True)
            normaliser = top[:, 0] + np.log(np.exp(outputs - top).sum(axis=1))
            total = (normaliser - (outputs * targets).sum(axis=1)).sum()
            slopes = softmax(outputs) - targets
        else:
            slopes = outputs - targets
            total = np.square(slopes).sum() / 2
        gradient = np.vstack([transposed @ slopes, slopes.sum(axis=0)]) / len(targets)
        gradient[:-1] += penalty * table[:-1]
        return total / len(targets) + penalty * np.square(table[:-1]).sum() / 2, gradient.ravel()

    parameters = np.zeros((num_features + 1) * num_outputs)
    for penalty in PENALTIES:
        options = {"maxiter": MAX_STEPS}
        parameters = minimize(loss, parameters, (penalty,), "L-BFGS-B", jac=True, options=options).x
        table = parameters.reshape(num_features + 1, num_outputs)
        yield penalty, scale * table[:-1], scale * table[-1] + mean
