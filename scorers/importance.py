"""Importance weights: how much likelier a document's words are in a target than in the pool it is chosen from.

The estimator of DSIR (Xie et al. 2023, "Data selection for language models via importance resampling"): words and
pairs of neighbouring words fall into buckets by hash, and a document's weight is the likelihood ratio of its buckets
under the two bags of n-grams. A model is two counts a bucket, which `count_ngrams` adds up over any batches in any
order.

What departs from the authors' code (`p-lambda/dsir`, `HashedNgramDSIR` with its defaults):

- Buckets come from a 64-bit hash of the characters, where DSIR takes SHA-256: other n-grams share a bucket.
- Lower case goes by code point, so the few letters whose lower case is two code points stay as they are.
- Letters of scripts that write no spaces are words of their own, and combining marks belong to the word before them
  (`words.cut_raw_words`); NLTK's tokenizer takes a Chinese sentence for one word and cuts at combining marks.
- The noise by which DSIR samples depends on doc_id and seed alone, not on the place in the pool.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models import ngram_counts
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.doc_ids import uuid_halves
from gristmill.scorers.span_hashes import span_hashes
from gristmill.scorers.text import TextBatch
from gristmill.scorers.vocabulary import mix

NUM_BUCKETS = 10_000
"""DSIR's default."""
SMOOTHING = 1e-8
"""Added to the share of every bucket, as DSIR does, so that a bucket without n-grams has a logarithm."""

SOURCE = "Xie et al. 2023, DSIR; p-lambda/dsir, HashedNgramDSIR"
DEVIATION = "another hash; words of scripts without spaces and combining marks as in words.cut_raw_words"

Positions = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


class HashedNgrams(NamedTuple):
    """The words and pairs of neighbouring words of a batch of n documents.

    Attributes:
        buckets: Bucket of each, int64[g].
        documents: Document of each, int64[g]; the words of a document come before its pairs.
    """

    buckets: Positions
    documents: Positions


def hash_ngrams(batch: TextBatch, num_buckets: int = NUM_BUCKETS) -> HashedNgrams:
    """Find the n-grams of n documents: lower-case words and pairs of them, in `num_buckets` buckets."""
    words = batch.raw_words
    # Plus one, since a NUL at the end of a word would not count.
    word_hashes = span_hashes(batch.lower_chars + np.uint32(1), words.starts, words.ends)
    first = np.flatnonzero(words.documents[1:] == words.documents[:-1])
    hashes = np.concatenate([word_hashes, span_hashes(word_hashes, first, first + 2)])
    return HashedNgrams(
        (hashes % np.uint64(num_buckets)).astype(np.int64),
        np.concatenate([words.documents, words.documents[first]]),
    )


def count_ngrams(batch: TextBatch, num_buckets: int = NUM_BUCKETS) -> Positions:
    """Count the n-grams of a batch of documents by bucket, int64[num_buckets]."""
    return np.bincount(hash_ngrams(batch, num_buckets).buckets, minlength=num_buckets)


def log_ratios(counts: Positions) -> Numbers:
    """Logarithm of how much more frequent each bucket is in the target than in the pool.

    Args:
        counts: Target, pool, int64, shape (2, buckets), as `ngram_counts.load` returns them.

    Returns:
        float64[buckets].
    """
    log_target, log_pool = np.log(counts / counts.sum(axis=1, keepdims=True) + SMOOTHING)
    return log_target - log_pool


def weigh(ngrams: HashedNgrams, ratios: Numbers, num_documents: int) -> tuple[Numbers, Numbers]:
    """The importance weights of n documents.

    Args:
        ngrams: Of the documents, in as many buckets as there are ratios.
        ratios: As `log_ratios` returns them.
        num_documents: n.

    Returns:
        The sum over each document's n-grams, and their mean, 0 where there is none, float64[n].
    """
    weights = ratios[ngrams.buckets]
    sums = np.bincount(ngrams.documents, weights, num_documents).astype(np.float64, copy=False)
    return sums, sums / np.maximum(np.bincount(ngrams.documents, minlength=num_documents), 1)


def weight_columns(name: str, target: str) -> tuple[Column, Column]:
    """What the two arrays of `weigh` mean.

    Args:
        name: Of the first column.
        target: What the pool is compared with.
    """
    return (
        Column(
            name=name,
            type=pa.float64(),
            description=f"Sum of log p_{target} - log p_pool over the document's words and pairs of words",
            unit="nats",
            higher_is_better=True,
            empty=0.0,
            source=SOURCE,
            deviation=DEVIATION,
        ),
        Column(
            name=f"{name}_per_ngram",
            type=pa.float64(),
            description=f"{name} divided by the number of words and pairs of words; 0 without words",
            unit="nats",
            higher_is_better=True,
            empty=0.0,
            source=SOURCE,
            deviation=f"{DEVIATION}; DSIR knows only the sum",
        ),
    )


def gumbel_noise(doc_ids: pa.ExtensionArray, seed: int) -> Numbers:
    """Noise that turns the largest log weights into a sample by weight without replacement.

    Args:
        doc_ids: n UUIDs.
        seed: From 0 to 2^64 - 1.

    Returns:
        Draws from the standard Gumbel distribution that depend on doc_id and seed alone, float64[n].
    """
    high, low = uuid_halves(doc_ids).T
    bits = mix(mix(high ^ mix(np.array([seed], np.uint64))) ^ low)
    # 52 bits and a half: neither 0 nor 1 after rounding, so both logarithms exist.
    uniform = ((bits >> np.uint64(12)) + 0.5) * 2.0**-52
    return -np.log(-np.log(uniform))


@dataclass(frozen=True, kw_only=True)
class Importance(Scorer):
    """Importance weights of documents for a target, from hashed words and pairs of words.

    Keeping the documents of highest `importance_key` draws a sample by weight without replacement (Gumbel top-k), as
    DSIR does; keeping those of highest `importance` takes the heaviest. Both favour long documents, whose n-grams add
    up; `importance_per_ngram` does not.

    Args:
        model: The folder of an `ngram_counts.npy`.
        seed: Another seed gives another sample.
    """

    name: ClassVar[str] = "importance"
    version: ClassVar[int] = 1
    trained_models: ClassVar[dict[str, str]] = {"model": "importance"}

    model: ModelPath
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 1 << 64:
            raise ValueError(f"seed is {self.seed}, must be from 0 to 2^64 - 1")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The weight, its mean and the key to sample by."""
        return (
            *weight_columns("importance", "target"),
            Column(
                name="importance_key",
                type=pa.float64(),
                description="importance plus Gumbel noise of doc_id and seed; without noise where no doc_id is known",
                unit="nats",
                higher_is_better=True,
                empty=0.0,
                source=SOURCE,
                deviation=f"{DEVIATION}; noise by doc_id",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The bytes of the counts."""
        try:
            return {"model": ngram_counts.digest(self.model)}
        except OSError as error:
            raise unusable(self.name, error) from error

    def setup(self) -> None:
        """Load the counts."""
        _ = self._log_ratios

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Weigh n documents."""
        ngrams = hash_ngrams(batch, len(self._log_ratios))
        importance, per_ngram = weigh(ngrams, self._log_ratios, len(batch))
        is_identified = "doc_id" in batch.documents.schema.names
        noise = gumbel_noise(batch.documents.column("doc_id"), self.seed) if is_identified else 0.0
        columns = [importance, per_ngram, importance + noise]
        return pa.RecordBatch.from_arrays([pa.array(column) for column in columns], schema=self.schema())

    @cached_property
    def _log_ratios(self) -> Numbers:
        try:
            return log_ratios(ngram_counts.load(self.model))
        except (OSError, ValueError) as error:
            raise unusable(self.name, error) from error


def unusable(scorer: str, error: OSError | ValueError) -> ScorerError:
    """What to say of a model that holds no counts."""
    return ScorerError(f"{scorer}.model: {error}; give a folder with {ngram_counts.FILE}")
