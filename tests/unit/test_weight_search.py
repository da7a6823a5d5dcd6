import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.weight_search import (
    SURROGATES,
    draw_around,
    draw_weights,
    rank_correlation,
    search_weights,
    surrogates_for,
)


def problem(num_signals, num_proxies, seed):
    """Weights, their losses with noise of a tenth of their deviation, and the best weights."""
    rng = np.random.default_rng(seed)
    best = rng.dirichlet(np.ones(num_signals))
    weights = draw_weights(num_proxies, num_signals, seed + 1)
    losses = ((weights - best) ** 2).sum(axis=1)
    return weights, losses + 0.1 * losses.std() * rng.normal(size=num_proxies), best


def cosine(one, other):
    return one @ other / np.linalg.norm(one) / np.linalg.norm(other)


@pytest.mark.parametrize("seed", range(3))
def test_with_5_signals_the_best_weights_are_found(seed):
    weights, losses, best = problem(5, 128, seed)
    assert cosine(search_weights(weights, losses).weights, best) >= 0.95


@pytest.mark.parametrize("seed", range(3))
def test_with_25_signals_half_of_what_uniform_weights_miss_is_found(seed):
    weights, losses, best = problem(25, 128, seed)
    missed = 1 - cosine(np.ones(25), best)
    assert 1 - cosine(search_weights(weights, losses).weights, best) <= missed / 2


def test_a_second_round_around_the_answer_comes_closer():
    weights, losses, best = problem(25, 128, 0)
    first = search_weights(weights, losses).weights
    around = draw_around(first, 64, seed=7)
    found = search_weights(
        np.concatenate([weights, around]), np.concatenate([losses, ((around - best) ** 2).sum(axis=1)])
    )
    assert cosine(found.weights, best) > cosine(first, best)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_every_surrogate_beats_uniform_weights(surrogate):
    weights, losses, best = problem(5, 256, 3)
    found = search_weights(weights, losses, surrogate=surrogate, num_candidates=20_000)
    assert found.surrogate == surrogate
    assert cosine(found.weights, best) > cosine(np.ones(5), best)


def test_few_proxies_leave_lightgbm_out():
    assert surrogates_for(63) == ["linear", "squares", "quadratic"]
    assert surrogates_for(64) == list(SURROGATES)


def test_the_surrogate_with_the_least_error_on_others_proxies_is_used():
    found = search_weights(*problem(5, 128, 0)[:2], num_candidates=1000)
    assert found.surrogate == min(found.errors, key=found.errors.get)
    assert found.errors[found.surrogate] < 1
    assert found.spearman > 0.9


def test_losses_without_any_order_are_not_claimed_to_be_predicted():
    weights, losses, _ = problem(5, 64, 0)
    noise = np.random.default_rng(9).permutation(losses)
    assert abs(search_weights(weights, noise, num_candidates=1000).spearman) < 0.5


@given(st.integers(2, 8), st.integers(0, 100))
def test_the_answer_is_on_the_simplex(num_signals, seed):
    weights, losses, _ = problem(num_signals, 16, seed)
    found = search_weights(weights, losses, num_candidates=500)
    assert (found.weights >= 0).all()
    assert found.weights.sum() == pytest.approx(1)


def test_the_same_seed_finds_the_same():
    weights, losses, _ = problem(5, 64, 0)
    one, other = (search_weights(weights, losses, num_candidates=1000) for _ in range(2))
    np.testing.assert_array_equal(one.weights, other.weights)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_proxy_without_a_loss_is_refused(bad):
    weights, losses, _ = problem(5, 16, 0)
    losses[3] = bad
    with pytest.raises(ValueError, match="found 16 proxies, 1 of them without a finite loss"):
        search_weights(weights, losses)


def test_too_few_proxies_are_refused():
    with pytest.raises(ValueError, match="found 7 proxies"):
        search_weights(*problem(5, 7, 0)[:2])


def test_equal_losses_correlate_with_nothing():
    assert rank_correlation(np.arange(5.0), np.ones(5)) == 0
