"""Weights by loss, against values worked out by hand."""

from math import exp

import numpy as np
import pytest
import torch

from gristmill.models.loss_weights import STRATEGIES, loss_weights, sampling_weights

LOSSES = [1.0, 2.0, 3.0, 5.0]  # h is -1, -0.5, 0 and 1
FAVOURS = {
    "lin_upper": [0.0, 0.5, 1.0, 1.0],
    "quadratic": [0.0, 0.75, 1.0, 0.0],
    "extremes": [1.0, 0.5, 0.0, 1.0],
}


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
@pytest.mark.parametrize("temperature", [1.0, 0.4])
def test_weights_are_those_of_the_paper(strategy, temperature):
    powers = [exp(favour / temperature) for favour in FAVOURS[strategy]]
    expected = pytest.approx([power / sum(powers) for power in powers])
    assert loss_weights(torch.tensor(LOSSES, dtype=torch.float64), strategy, temperature).tolist() == expected
    assert sampling_weights(np.array(LOSSES), strategy, temperature).tolist() == expected


def test_equal_losses_weigh_alike():
    assert loss_weights(torch.full((4,), 2.5)).tolist() == [0.25] * 4
    assert sampling_weights(np.full(4, 2.5)).tolist() == [0.25] * 4


def test_weights_carry_no_gradient():
    losses = torch.tensor(LOSSES, requires_grad=True)
    weights = loss_weights(losses)
    (weights * losses).sum().backward()
    assert not weights.requires_grad
    assert losses.grad.tolist() == pytest.approx(weights.tolist())


def test_what_is_none_is_refused():
    with pytest.raises(ValueError, match="strategy 'upper'; expected one of lin_upper, quadratic, extremes"):
        sampling_weights(np.ones(2), "upper")
    with pytest.raises(ValueError, match="temperature 0; expected a number above 0"):
        loss_weights(torch.ones(2), temperature=0)
