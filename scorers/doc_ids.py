"""Document identities as numbers, and the seeded random numbers that depend on nothing else."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa


def uuid_halves(uuids: pa.ExtensionArray) -> npt.NDArray[np.uint64]:
    """The halves of n UUIDs, shape (n, 2)."""
    storage = uuids.storage
    raw = np.frombuffer(storage.buffers()[1] or b"", ">u8", 2 * len(storage), storage.offset * 16)
    return raw.astype(np.uint64).reshape(-1, 2)


def random_keys(doc_ids: pa.ChunkedArray, seed: int) -> npt.NDArray[np.float64]:
    """Uniform numbers in [0, 1) that depend on doc_id and seed alone (the finaliser of SplitMix64).

    Args:
        doc_ids: n UUIDs.
        seed: Any whole number.

    Returns:
        float64, shape (n,).
    """
    halves = np.concatenate([np.empty((0, 2), np.uint64), *map(uuid_halves, doc_ids.chunks)])
    with np.errstate(over="ignore"):
        mixed = halves[:, 0] ^ (halves[:, 1] * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed % 2**64)
        mixed += np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53
