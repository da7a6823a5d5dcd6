"""Weights of samples by their losses: "Dynamic Loss-Based Sample Reweighting" (arXiv 2502.06733).

Losses are scaled to h in [-1, 1], from the least to the greatest; a strategy favours some h; a softmax makes weights:

    lin_upper   min(h + 1, 1)   only low losses are damped; works best in the paper
    quadratic   1 - h^2         medium losses are favoured
    extremes    |h|             low and high losses are favoured
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

STRATEGIES = {
    "lin_upper": lambda scaled: (scaled + 1).clip(max=1),
    "quadratic": lambda scaled: 1 - scaled**2,
    "extremes": lambda scaled: abs(scaled),
}
MIN_SPREAD = 1e-6
"""Losses that differ by less weigh alike."""


def loss_weights(
    losses: "torch.Tensor", strategy: str = "lin_upper", temperature: float = 1.0
) -> "torch.Tensor":
    """Weights of a batch's samples in the training loss, sum(weights * losses); they carry no gradient.

    Gather the losses of all ranks first, since the least and the greatest of a small batch are noisy. The paper leaves
    the first 1,000 steps unweighted, and takes temperature 1.0 for GPT-2 small and 0.4 for larger models.

    Args:
        losses: Mean loss of each sample, of any float dtype, [n], n > 0.
        strategy: Which losses weigh more.
        temperature: Above 0; the greater, the more alike are the weights.

    Returns:
        They sum to 1; of the dtype of the losses, [n].

    Raises:
        ValueError: If there is no such strategy or temperature.
    """
    import torch

    favour = _favour(losses.detach(), strategy, temperature)
    return torch.softmax(favour / temperature, dim=0)


def sampling_weights(
    losses: npt.NDArray[np.float64], strategy: str = "lin_upper", temperature: float = 1.0
) -> npt.NDArray[np.float64]:
    """The same weights as probabilities of drawing documents, from losses that a reference model gave them once.

    Not in the paper, which weighs batches. Drop outliers first: one huge loss makes all others alike.

    Args:
        losses: Mean loss of each document, float64[n], n > 0.
        strategy: Which losses are drawn more often.
        temperature: Above 0; the greater, the more alike are the weights.

    Returns:
        They sum to 1, float64[n].

    Raises:
        ValueError: If there is no such strategy or temperature.
    """
    favour = _favour(losses, strategy, temperature)
    weights = np.exp((favour - favour.max()) / temperature)
    return weights / weights.sum()


def _favour(losses: Any, strategy: str, temperature: float) -> Any:
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r}; expected one of {', '.join(STRATEGIES)}")
    if temperature <= 0:
        raise ValueError(f"temperature {temperature}; expected a number above 0")
    least, greatest = losses.min(), losses.max()
    spread = (greatest - least).clip(min=MIN_SPREAD)
    return STRATEGIES[strategy]((2 * losses - (greatest + least)) / spread)
