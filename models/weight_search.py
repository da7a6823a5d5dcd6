"""Which weights of quality signals teach best, from the losses of proxies trained under random weights (Meta-rater).

    weights w of d signals (>= 0, sum 1) -> best documents by their weighted sum -> a proxy -> its validation loss
    a surrogate learns w -> loss from the proxies; the answer is the mean of the candidates it finds best

As in Meta-rater (arXiv 2504.14194, section 3), with surrogates to choose from: the paper's LightGBM cannot leave the
range of what it saw and needs many proxies; ridge regressions on w and its products are smooth and do with few.

The mean of many candidates is meant. Searching on around the answer trusts the surrogate too far: with 25 signals, 128
proxies and 10 % noise, the cosine to the best weights went from 0.86-0.96 by kind of loss to 0.83-0.99, its worst from
0.79 to 0.53. Half as many proxies more, around the answer, raised it to 0.93-0.97; out of the same 128 they hardly do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

Numbers = npt.NDArray[np.float64]
Surrogate = Callable[[Numbers], Numbers]
"""Weights, float64[m, d] -> predicted losses, float64[m]."""

NUM_FOLDS = 5
MIN_BOOSTED = 64
"""Proxies below which LightGBM predicts a constant: a leaf holds 20."""
MIN_PROXIES = 8
PENALTIES = np.logspace(-8, 3, 45)
"""Of ridge regressions, relative to the largest eigenvalue of the features' products."""
LIGHTGBM = {"objective": "regression", "learning_rate": 0.01, "seed": 42, "verbosity": -1, "num_threads": 1}
NUM_ROUNDS = 1000
PATIENCE = 5
NUM_CANDIDATES = 200_000
BLOCK = 4096
"""Candidates looked at together: with 25 signals a surrogate holds 2.8 kB for each."""
NUM_BEST = 128
CONCENTRATION = 4.0
"""Of a second round's Dirichlet around the first answer, a signal: about a quarter of the first round's variance."""


@dataclass(frozen=True)
class Found:
    """The answer of a search.

    Args:
        weights: The mean of the best candidates, float64[d], >= 0, sum 1.
        loss: What the surrogate predicts for it.
        surrogate: Which was used.
        errors: Surrogate -> root mean square error on proxies it was not fitted to, relative to the losses' deviation.
        spearman: Rank correlation of the used one's predictions with the losses, on proxies it was not fitted to.
    """

    weights: Numbers
    loss: float
    surrogate: str
    errors: dict[str, float]
    spearman: float


def draw_weights(num_vectors: int, num_signals: int, seed: int) -> Numbers:
    """Weights drawn evenly from the simplex, Dirichlet(1).

    Returns:
        float64[num_vectors, num_signals], rows of sum 1.
    """
    return np.random.default_rng(seed).dirichlet(np.ones(num_signals), num_vectors)


def draw_around(center: Numbers, num_vectors: int, seed: int) -> Numbers:
    """Weights drawn around an answer, for a second round of proxies.

    Args:
        center: float64[d], sum 1.
        num_vectors: How many.
        seed: Of the draw.
    """
    spread = np.maximum(CONCENTRATION * len(center) * center, 1e-3)
    return np.random.default_rng(seed).dirichlet(spread, num_vectors)


def search_weights(
    weights: Numbers,
    losses: Numbers,
    *,
    surrogate: str | None = None,
    num_candidates: int = NUM_CANDIDATES,
    num_best: int = NUM_BEST,
    seed: int = 0,
) -> Found:
    """The weights that a surrogate fitted to the proxies predicts to be best.

    Args:
        weights: One row a proxy, float64[k, d], k >= 8.
        losses: Their validation losses, finite, float64[k].
        surrogate: One of `SURROGATES`; None for that with the least error on proxies it was not fitted to.
        num_candidates: Drawn from Dirichlet(1).
        num_best: Whose mean is the answer.
        seed: Of the candidates.

    Raises:
        ValueError: If there are too few proxies, or a loss is no number.
    """
    if len(weights) < MIN_PROXIES or not np.isfinite(losses).all():
        raise ValueError(
            f"found {len(weights)} proxies, {np.sum(~np.isfinite(losses))} of them without a finite loss; expected at "
            f"least {MIN_PROXIES}, all finite"
        )
    names = [surrogate] if surrogate else surrogates_for(len(weights))
    held_out = {name: _held_out_predictions(SURROGATES[name], weights, losses) for name in names}
    deviation = max(float(losses.std()), 1e-12)
    errors = {name: float(np.sqrt(np.mean((p - losses) ** 2)) / deviation) for name, p in held_out.items()}
    best = min(names, key=lambda name: errors[name])
    predict = SURROGATES[best](weights, losses)
    candidates = draw_weights(num_candidates, weights.shape[1], seed)
    blocks = np.array_split(candidates, -(-num_candidates // BLOCK))
    predicted = np.concatenate([predict(block) for block in blocks])
    answer = candidates[np.argsort(predicted, kind="stable")[:num_best]].mean(axis=0)
    return Found(
        weights=answer,
        loss=float(predict(answer[None])[0]),
        surrogate=best,
        errors=errors,
        spearman=rank_correlation(held_out[best], losses),
    )


def surrogates_for(num_proxies: int) -> list[str]:
    """The surrogates that so many proxies suffice for."""
    return [name for name in SURROGATES if name != "lightgbm" or num_proxies >= MIN_BOOSTED]


def rank_correlation(predicted: Numbers, losses: Numbers) -> float:
    """Spearman's rank correlation, 0 where one of the two is constant."""
    if np.ptp(predicted) == 0 or np.ptp(losses) == 0:
        return 0.0
    return float(spearmanr(predicted, losses).statistic)


def fit_linear(weights: Numbers, losses: Numbers) -> Surrogate:
    """Ridge regression on the weights."""
    return _fit_ridge(weights, losses, lambda w: w)


def fit_squares(weights: Numbers, losses: Numbers) -> Surrogate:
    """Ridge regression on the weights and their squares."""
    return _fit_ridge(weights, losses, lambda w: np.concatenate([w, w**2], axis=1))


def fit_quadratic(weights: Numbers, losses: Numbers) -> Surrogate:
    """Ridge regression on the weights and all their products of two."""
    rows, columns = np.triu_indices(weights.shape[1])
    return _fit_ridge(weights, losses, lambda w: np.concatenate([w, w[:, rows] * w[:, columns]], axis=1))


def fit_lightgbm(weights: Numbers, losses: Numbers) -> Surrogate:
    """The paper's: boosted trees, stopped early by the last fifth of the proxies."""
    import lightgbm

    num_fitted = len(weights) * 4 // 5
    model = lightgbm.train(
        LIGHTGBM,
        lightgbm.Dataset(weights[:num_fitted], losses[:num_fitted]),
        NUM_ROUNDS,
        valid_sets=[lightgbm.Dataset(weights[num_fitted:], losses[num_fitted:])],
        callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
    )

    def predict(candidates: Numbers) -> Numbers:
        predicted: Any = model.predict(candidates, num_threads=1)
        return np.asarray(predicted, np.float64)

    return predict


SURROGATES: dict[str, Callable[[Numbers, Numbers], Surrogate]] = {
    "linear": fit_linear,
    "squares": fit_squares,
    "quadratic": fit_quadratic,
    "lightgbm": fit_lightgbm,
}


def _held_out_predictions(
    fit: Callable[[Numbers, Numbers], Surrogate], weights: Numbers, losses: Numbers
) -> Numbers:
    """Each proxy's loss as predicted by a surrogate fitted to the other folds, float64[k]."""
    folds = np.arange(len(losses)) % NUM_FOLDS
    predicted = np.empty(len(losses))
    for fold in range(NUM_FOLDS):
        inside = folds == fold
        predicted[inside] = fit(weights[~inside], losses[~inside])(weights[inside])
    return predicted


def _fit_ridge(weights: Numbers, losses: Numbers, features: Callable[[Numbers], Numbers]) -> Surrogate:
    """Ridge regression on standardised features, its penalty that of the least leave-one-out error."""
    raw = features(weights)
    center, scale = raw.mean(axis=0), np.maximum(raw.std(axis=0), 1e-12)
    standard = (raw - center) / scale
    mean = losses.mean()
    values, vectors = np.linalg.eigh(standard @ standard.T)
    values = np.maximum(values, 0)
    rotated = vectors.T @ (losses - mean)
    fits = [_dual(values, vectors, rotated, penalty * max(values[-1], 1e-12)) for penalty in PENALTIES]
    slopes = standard.T @ min(fits, key=lambda fit: fit[0])[1]
    return lambda candidates: mean + ((features(candidates) - center) / scale) @ slopes


def _dual(values: Numbers, vectors: Numbers, rotated: Numbers, penalty: float) -> tuple[float, Numbers]:
    """Leave-one-out error and dual coefficients of a ridge regression, from its kernel's eigenvectors."""
    inverse = 1 / (values + penalty)
    dual = vectors @ (inverse * rotated)
    return float(np.mean((dual / (vectors**2 @ inverse)) ** 2)), dual
