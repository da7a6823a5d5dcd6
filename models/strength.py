"""Predictive strength: how surely the better of two language models also compresses a document better."""

import numpy as np
import numpy.typing as npt


def predictive_strength(losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of the pairs of models in which the better one has the smaller loss on a document.

    PreSelect (Shum et al. 2025, arXiv 2503.00808, section 3). Equal losses earn nothing, as in the released code.

    Args:
        losses: Of n documents under N models, the worst model first, float64[n, N], N > 1; what the numbers are a unit
            of is all one, so long as it is the same along each row. NaN where a model has none.

    Returns:
        float64[n], in [0, 1]; NaN where a model has no loss.
    """
    num_models = losses.shape[1]
    num_pairs = num_models * (num_models - 1) // 2
    won = sum(
        (losses[:, :-apart] > losses[:, apart:]).sum(axis=1, dtype=np.int64) for apart in range(1, num_models)
    )
    return np.where(np.isnan(losses).any(axis=1), np.nan, won / num_pairs)
