"""MinHash signatures (Broder 1997): two documents agree on a value with the probability of their Jaccard similarity.

Value p of a signature is the smallest a_p x modulo 2^32 over the shingles x of the document, a_p odd, so that every
multiplier permutes the 32-bit numbers. The shingles are hashes already, so no addend is needed; 0, which no
multiplication moves, counts as 1.

Plain NumPy, by benchmark (`tests/bench/bench_signatures.py`): a million shingles, which 6 MB of English text has, take
one core 0.028 s for 112 values, rensa 0.5 0.013 s and datasketch's bulk interface 1.1 s. rensa was left aside although
it is faster still: signatures are stored for years, and its release 0.5 refuses those of 0.4; and cutting shingles
takes three quarters of the time, so that it would save an eighth.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.scorers.bands import DATATROVE_BANDS
from gristmill.scorers.base import Column, Scorer
from gristmill.scorers.shingles import DATATROVE_SHINGLING, DocumentHashes, Shingling, shingle_hashes
from gristmill.scorers.text import TextBatch
from gristmill.scorers.vocabulary import mix

Signatures = npt.NDArray[np.uint32]

NO_SHINGLE = np.uint32(0xFFFFFFFF)
"""Every value of the signature of a document without a shingle."""
BLOCK_SHINGLES = 4096
"""Shingles permuted at once."""


def multipliers(num_perm: int, seed: int) -> npt.NDArray[np.uint32]:
    """Odd numbers, the same for a seed whatever the version of NumPy, uint32[num_perm]."""
    counter = mix(np.array([seed], np.uint64)) + np.arange(num_perm).astype(np.uint64)
    return (mix(counter) >> np.uint64(32)).astype(np.uint32) | np.uint32(1)


def signatures(shingles: DocumentHashes, factors: npt.NDArray[np.uint32]) -> Signatures:
    """Sign n documents.

    Args:
        shingles: Shingles of n documents.
        factors: One multiplier for each value of a signature, uint32[num_perm].

    Returns:
        uint32[n, num_perm].
    """
    hashes = np.maximum(shingles.hashes >> np.uint64(32), 1).astype(np.uint32)
    signed = np.flatnonzero(np.diff(shingles.offsets))
    starts = shingles.offsets[signed]
    smallest = np.full((len(factors), len(signed)), NO_SHINGLE)
    buffer = np.empty((len(factors), BLOCK_SHINGLES), np.uint32)
    for start in range(0, len(hashes), BLOCK_SHINGLES):
        block = hashes[start : start + BLOCK_SHINGLES]
        permuted = np.multiply.outer(factors, block, out=buffer[:, : len(block)])
        first = int(np.searchsorted(starts, start, side="right")) - 1
        end = int(np.searchsorted(starts, start + len(block)))
        minima = np.minimum.reduceat(permuted, np.maximum(starts[first:end] - start, 0), axis=1)
        np.minimum(smallest[:, first:end], minima, out=smallest[:, first:end])
    result = np.full((len(shingles.offsets) - 1, len(factors)), NO_SHINGLE)
    result[signed] = smallest.T
    return result


def estimate_jaccard(left: Signatures, right: Signatures) -> npt.NDArray[np.float64]:
    """Estimate Jaccard similarities; the standard error of s is sqrt(s (1 - s) / num_perm).

    Args:
        left: Signatures of documents that have shingles, uint32[..., num_perm].
        right: The same, uint32[..., num_perm].

    Returns:
        float64[...].
    """
    return np.mean(left == right, axis=-1)


def signature_values(column: pa.FixedSizeBinaryArray) -> Signatures:
    """The column `minhash_signature` as numbers, without a copy: uint32[n, num_perm]."""
    num_perm = column.type.byte_width // 4
    data = np.frombuffer(column.buffers()[1], "<u4", len(column) * num_perm, column.offset * num_perm * 4)
    return data.reshape(len(column), num_perm)


@dataclass(frozen=True, kw_only=True)
class MinHash(Scorer):
    """The signature by which near duplicates are found.

    Documents with fewer words than a shingle are compared exactly, see `shingles.shingle_hashes`. Those without a
    word have `num_shingles` 0 and must not be compared: their signatures are all alike.

    Args:
        num_perm: Values of a signature; 112 serve datatrove's 14 bands of 8 rows.
        seed: Another seed gives other values.
        shingling: How documents are cut into shingles; the default is datatrove's.
    """

    name: ClassVar[str] = "minhash"
    version: ClassVar[int] = 1

    num_perm: int = DATATROVE_BANDS[0] * DATATROVE_BANDS[1]
    seed: int = 1
    shingling: Shingling = DATATROVE_SHINGLING

    def __post_init__(self) -> None:
        if self.num_perm < 1:
            raise ValueError(f"num_perm is {self.num_perm}, must be at least 1")
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed is {self.seed}, must be from 0 to 2^64 - 1")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The signature, and how many shingles it sums up."""
        return (
            Column(
                name="minhash_signature",
                # Not a list, which Parquet reads 5 to 10 times as slowly; DuckDB cuts a BLOB by bytes as well.
                type=pa.binary(4 * self.num_perm),
                description="Smallest permuted shingle hash under each permutation, little-endian uint32 end to end: "
                "value i is minhash_signature[4 * i + 1 : 4 * i + 4] in DuckDB",
                unit="hash",
                empty=NO_SHINGLE.tobytes() * self.num_perm,
                source="Broder 1997, On the resemblance and containment of documents; defaults of datatrove 0.10.1",
                deviation="32-bit values; words as in plain_text",
            ),
            Column(
                name="num_shingles",
                type=pa.int64(),
                description="Distinct shingles; documents with 0 must not be compared",
                unit="shingles",
                minimum=0,
                source="Broder 1997",
            ),
        )

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Sign n documents."""
        shingles = shingle_hashes(batch, self.shingling)
        data = signatures(shingles, self._factors).astype("<u4", copy=False)
        column = pa.Array.from_buffers(pa.binary(4 * self.num_perm), len(batch), [None, pa.py_buffer(data)])
        return pa.RecordBatch.from_arrays([column, pa.array(np.diff(shingles.offsets))], schema=self.schema())

    @cached_property
    def _factors(self) -> npt.NDArray[np.uint32]:
        return multipliers(self.num_perm, self.seed)
