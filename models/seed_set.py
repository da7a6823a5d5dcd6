"""The documents whose predictive strength was measured, beside the classifier that was trained on some of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

FILE = "seed_documents.npy"
DocIds = npt.NDArray[np.bytes_]


def id_bytes(doc_ids: pa.ExtensionArray) -> DocIds:
    """The 16 bytes of n UUIDs, S16[n]: NumPy compares such strings byte by byte, trailing zeros too."""
    storage = doc_ids.storage
    return np.frombuffer(storage.buffers()[1] or b"", "S16", len(storage), storage.offset * 16)


def save_seed_set(folder: Path, doc_ids: DocIds) -> None:
    """Write a set of documents, sorted."""
    np.save(folder / FILE, np.sort(doc_ids), allow_pickle=False)


def load_seed_set(folder: Path) -> DocIds:
    """The sorted set beside a model, S16[m]; empty where there is none."""
    path = folder / FILE
    return np.load(path, allow_pickle=False) if path.is_file() else np.empty(0, "S16")


def is_in_seed_set(doc_ids: pa.ExtensionArray, seed_set: DocIds) -> npt.NDArray[np.bool_]:
    """Which of n documents belong to a sorted set, bool[n]."""
    wanted = id_bytes(doc_ids)
    if len(seed_set) == 0:
        return np.zeros(len(wanted), np.bool_)
    places = np.searchsorted(seed_set, wanted)
    found: npt.NDArray[np.bool_] = seed_set[np.minimum(places, len(seed_set) - 1)] == wanted
    return found
