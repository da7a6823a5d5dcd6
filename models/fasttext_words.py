"""Words as fastText cuts and hashes them, over many texts at once."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.fasttext_file import END_OF_LINE

IS_WORD = ~np.isin(np.arange(256), list(b" \n\r\t\v\f\0"))
"""Which bytes belong to words; the others separate them."""
FEW_WORDS = 32
"""Words below which a loop over bytes in Python is faster than one over words in NumPy."""
START_32, PRIME_32 = 2166136261, 16777619
START_64, PRIME_64 = 14695981039346656037, 1099511628211

Hashes = npt.NDArray[np.uint64]


class HashedWords(NamedTuple):
    """Hashes of n words.

    Args:
        fasttext: fastText's own of 32 bits, as signed numbers widened to 64, uint64[n].
        keys: Of 64 bits, which tell words apart, uint64[n].
    """

    fasttext: Hashes
    keys: Hashes


def cut_words(texts: pa.LargeStringArray) -> pa.DictionaryArray:
    """The words of n texts in order, with the word for the end of a line after each text.

    Words come with the separators behind them, which saves a copy of the text; `hash_words` leaves them out.

    Args:
        texts: n > 0 texts without line ends and without that word.
    """
    end = f" {END_OF_LINE} "
    all_texts = pa.LargeListArray.from_arrays(pa.array([0, len(texts)], pa.int64()), texts)
    joined = pc.binary_join(all_texts, pa.scalar(end, pa.large_string()))[0].as_buffer()
    chars = np.concatenate([np.frombuffer(joined, np.uint8), np.frombuffer(end.encode(), np.uint8)])
    is_start = IS_WORD.take(chars)
    is_start[1:] &= ~is_start[:-1]
    offsets = np.append(np.flatnonzero(is_start), len(chars))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(chars)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers).dictionary_encode()


def hash_words(words: pa.LargeBinaryArray) -> HashedWords:
    """FNV-1a of n words without the separators behind them, in step from byte to byte.

    What a few words are longer than all others is hashed at 4 MB/s.
    """
    offsets = np.frombuffer(words.buffers()[1], np.int64, len(words) + 1, words.offset * 8)
    chars = np.frombuffer(words.buffers()[2] or b"", np.uint8)[: offsets[-1]]
    # fastText takes a byte for a signed number, which flips the upper bits of its hash.
    signed = chars.view(np.int8).astype(np.int32).view(np.uint32)
    num_before = np.concatenate([[0], np.cumsum(IS_WORD.take(chars))])
    lengths = np.diff(num_before[offsets])
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = offsets[:-1][order], lengths[order]
    narrow, wide = np.full(len(words), START_32, np.uint32), np.full(len(words), START_64, np.uint64)
    num_longer = np.searchsorted(-lengths, -np.arange(lengths.max(initial=0)))
    num_steps = int((num_longer >= FEW_WORDS).sum())
    for step, active in enumerate(num_longer[:num_steps].tolist()):
        places = starts[:active] + step
        narrow[:active] = (narrow[:active] ^ signed[places]) * np.uint32(PRIME_32)
        wide[:active] = (wide[:active] ^ chars[places]) * np.uint64(PRIME_64)
    for row in range(int((lengths > num_steps).sum())):
        rest = slice(starts[row] + num_steps, starts[row] + lengths[row])
        narrow[row] = _hash_on(int(narrow[row]), signed[rest], PRIME_32, 0xFFFFFFFF)
        wide[row] = _hash_on(int(wide[row]), chars[rest], PRIME_64, 0xFFFFFFFFFFFFFFFF)
    hashed = HashedWords(np.empty(len(words), np.uint64), np.empty(len(words), np.uint64))
    hashed.fasttext[order] = narrow.view(np.int32).astype(np.int64).view(np.uint64)
    hashed.keys[order] = wide
    return hashed


def _hash_on(state: int, values: npt.NDArray[np.integer], prime: int, mask: int) -> int:
    for value in values.tolist():
        state = (state ^ value) * prime & mask
    return state


END_KEY = hash_words(pa.array([END_OF_LINE.encode()], pa.large_binary())).keys[0]
"""Key of the word for the end of a line."""
