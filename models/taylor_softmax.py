"""Probabilities of importance: the second-order Taylor softmax of gains (INGENIOUS, arXiv 2305.06677)."""

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]


def taylor_softmax(gains: Numbers, temperature: float = 1.0) -> Numbers:
    """Probabilities proportional to 1 + g + g^2 / 2 with g = gain / temperature, above 0 for any gain.

    Args:
        gains: float64[n], finite.
        temperature: Above 0; the greater, the more alike are the probabilities.

    Returns:
        They sum to 1, float64[n].
    """
    scaled = gains / temperature
    weights = 1 + scaled + scaled**2 / 2
    return weights / weights.sum()
