"""Bands of a MinHash signature: documents that agree on all rows of some band are candidate pairs.

The chance that a pair of Jaccard similarity s is found by b bands of r rows is 1 - (1 - s^r)^b. More bands find more,
more rows find less; neither needs other signatures, so one signature serves several thresholds. Pairs found, of 100:

                         num_perm   s = 0.5   0.6   0.7   0.8   0.9
    14 bands of 8 rows        112         5    21    56    92   100    datatrove, FineWeb
    16 bands of 7 rows        112        12    37    75    98   100
    18 bands of 6 rows        108        25    58    89   100   100    leaves 0.4 % at 0.8
    9 bands of 12 rows        108         0     2    12    47    95    datasketch's choice for 0.8 of 112
"""

import numpy as np
import numpy.typing as npt

from gristmill.scorers.vocabulary import mix

DATATROVE_BANDS = (14, 8)
"""Bands and rows per band of datatrove's `MinhashConfig`."""


def collision_probability(
    jaccard: npt.ArrayLike, num_bands: int, rows_per_band: int
) -> npt.NDArray[np.float64]:
    """The chance that a pair is found: 1 - (1 - jaccard^rows_per_band)^num_bands.

    Args:
        jaccard: Similarities from 0 to 1, any shape.
        num_bands: Bands of a signature; more find more.
        rows_per_band: Values of a band; more find less.

    Returns:
        Probabilities, float64, same shape.
    """
    return 1 - (1 - np.asarray(jaccard, np.float64) ** rows_per_band) ** num_bands


def choose_bands(threshold: float, num_perm: int) -> tuple[int, int]:
    """Bands and rows per band for a threshold, as datasketch chooses them.

    They make the sum of two areas smallest: under the collision probability below the threshold (false positives)
    and over it above the threshold (false negatives).

    Args:
        threshold: Jaccard similarity from which pairs are wanted, from 0 to 1.
        num_perm: Values of a signature, at least 2; not all need be used.

    Returns:
        num_bands and rows_per_band.

    Raises:
        ValueError: If so few values allow but one band.
    """
    # Here, since it loads scipy.
    from datasketch import MinHashLSH

    layout = MinHashLSH(threshold=threshold, num_perm=num_perm)
    return layout.b, layout.r


def band_hashes(
    signatures: npt.NDArray[np.uint32], num_bands: int, rows_per_band: int
) -> npt.NDArray[np.uint64]:
    """Hash the bands of n signatures.

    Args:
        signatures: uint32[n, num_perm].
        num_bands: Bands; the chance that a pair of similarity s shares one is 1 - (1 - s^rows_per_band)^num_bands.
        rows_per_band: Values of a band; band i is `signatures[:, i * rows_per_band:(i + 1) * rows_per_band]`.

    Returns:
        uint64[n, num_bands]. Bands of different number have different hashes, whatever their values.

    Raises:
        ValueError: If the bands need more values than the signatures have.
    """
    num_rows, num_perm = signatures.shape
    if num_bands * rows_per_band > num_perm:
        raise ValueError(
            f"{num_bands} bands of {rows_per_band} rows need {num_bands * rows_per_band} values of a signature, "
            f"there are {num_perm}"
        )
    bands = signatures[:, : num_bands * rows_per_band].reshape(num_rows, num_bands, rows_per_band)
    hashes = np.broadcast_to(np.arange(num_bands, dtype=np.uint64), (num_rows, num_bands))
    for row in range(rows_per_band):
        hashes = mix(hashes) + bands[:, :, row]
    return mix(hashes)
