"""The critical mixture ratio on curves whose law is known."""

import numpy as np
import pytest

from gristmill.models.mixture_law import critical_ratio, fit_power_law

TOKENS = np.geomspace(1, 100, 24)
RATIOS = [1 / 8, 1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4]


def test_the_domain_loss_is_a_power_law():
    law = fit_power_law(TOKENS, 0.8 * TOKENS**-0.3 - 1.2)
    assert [law(tokens) for tokens in (1, 7.5, 100)] == pytest.approx(
        [0.8 * tokens**-0.3 - 1.2 for tokens in (1, 7.5, 100)], abs=1e-5
    )
    assert law.exponents[0] == pytest.approx(-0.3, abs=1e-3)
    assert law.error < 1e-5


def test_the_general_loss_rises_and_falls():
    def rise(tokens):
        return 0.3 * tokens**0.2 - 0.06 * tokens**0.55 - 0.2

    law = fit_power_law(TOKENS, rise(TOKENS), num_terms=2)
    assert [law(tokens) for tokens in TOKENS] == pytest.approx(rise(TOKENS), abs=1e-4)
    assert law(13) == pytest.approx(rise(13), abs=1e-4)


def test_noise_is_the_error():
    noise = np.random.default_rng(1).normal(0, 0.01, len(TOKENS))
    law = fit_power_law(TOKENS, 0.8 * TOKENS**-0.3 + noise)
    assert 0.004 < law.error < 0.013


def test_nothing_is_said_beyond_what_was_observed():
    law = fit_power_law(TOKENS, TOKENS**-0.3)
    for tokens in (0.99, 101):
        with pytest.raises(ValueError, match=r"observed from 1 to 100; expected a value between"):
            law(tokens)


def test_the_critical_ratio_by_hand():
    """0.2 R^2 - 0.01 = 0.05 at R = sqrt(0.3)."""
    found = critical_ratio(RATIOS, [0.2 * ratio**2 - 0.01 for ratio in RATIOS])
    assert (found.ratio, found.bound) == (pytest.approx(0.3**0.5, abs=1e-4), "=")
    assert found.error < 1e-5


@pytest.mark.parametrize(("epsilon", "bound", "ratio"), [(0.2, ">", 3 / 4), (-0.05, "<", 1 / 8)])
def test_a_ratio_beyond_the_observed_is_a_bound(epsilon, bound, ratio):
    found = critical_ratio(RATIOS, [0.2 * ratio**2 - 0.01 for ratio in RATIOS], epsilon)
    assert (found.bound, found.ratio) == (bound, ratio)


@pytest.mark.parametrize(
    ("x", "message"), [([1, 2, 3], "found 3 different points"), ([0, 1, 2, 3], "above 0")]
)
def test_too_few_points(x, message):
    with pytest.raises(ValueError, match=message):
        fit_power_law(x, x)
