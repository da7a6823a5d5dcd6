"""Mixtures: which dataset each sample of the stream comes from, by weights or in turns, without a random state.

Sample n takes the dataset in whose share of [0, 1) the n-th multiple of the golden ratio falls (a Weyl sequence), so
that any stretch of the stream, and any rank's part of a batch, holds nearly its exact shares.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

GOLDEN_RATIO = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio."""
WEAK_SHIFT = 0.05
STRONG_SHIFT = 0.25
"""Shares of replay for new data that is like the earlier (web after web) and unlike it (another language), as in
"Simple and Scalable Strategies to Continually Pre-train Large Language Models" (arXiv 2403.08763)."""

Entry = tuple[str, float] | tuple[str, float, str]
"""Folder of tokens and weight, or folder, weight and the one source that is taken of the folder."""


def choose_datasets(
    samples: npt.NDArray[np.int64], weights: Sequence[float], seed: int
) -> npt.NDArray[np.int64]:
    """The dataset of each sample.

    Args:
        samples: Numbers in the stream, int64[k].
        weights: Of the datasets, d of them, positive, of any sum.
        seed: Where the sequence starts.

    Returns:
        0 to d - 1, int64[k].
    """
    shares = np.cumsum(np.asarray(weights, np.float64))
    borders = shares[:-1] / shares[-1]
    words = samples.astype(np.uint64) * np.uint64(GOLDEN_RATIO) + np.uint64(seed * GOLDEN_RATIO**2 % 2**64)
    return np.searchsorted(borders, (words >> np.uint64(11)).astype(np.float64) * 2.0**-53, "right")


def take_turns(samples: npt.NDArray[np.int64], num_datasets: int, turn: int) -> npt.NDArray[np.int64]:
    """The dataset of each sample where one follows the other, and the first the last.

    Args:
        samples: Numbers in the stream, int64[k].
        num_datasets: d.
        turn: Samples of each turn.

    Returns:
        0 to d - 1, int64[k].
    """
    return samples // turn % num_datasets


def with_replay(new: Sequence[Entry], earlier: Sequence[Entry], share: float = WEAK_SHIFT) -> list[Entry]:
    """A mixture of new data and of what the model was trained on before, each in its own proportions.

    Args:
        new: (folder of tokens, weight) or (folder, weight, source) of each dataset.
        earlier: The earlier mixture.
        share: Of the samples that replay the earlier mixture; they take the place of new ones.
    """
    parts = [(new, 1.0 - share), (earlier, share)]
    return [
        (entry[0], part_share * entry[1] / sum(entry[1] for entry in part), *entry[2:])
        for part, part_share in parts
        for entry in part
    ]
