"""Contamination: how much of a document stands in evaluation sets, by runs of 13 words as GPT-3 measured it."""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.shingles import Shingling, shingle_hashes
from gristmill.scorers.text import TextBatch


class NgramIndex(NamedTuple):
    """Which n-grams occur in which sets.

    Attributes:
        hashes: Ascending, once for each set that has the n-gram, uint64[g].
        sets: Number of that set, int64[g].
        prefixes: Which values of the first bits occur, bool[2^bits]: one look-up spares most n-grams the search.
    """

    hashes: npt.NDArray[np.uint64]
    sets: npt.NDArray[np.int64]
    prefixes: npt.NDArray[np.bool_]

    def find(self, hashes: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Every occurrence of some n-grams: which of them, and in which set, int64[o] each."""
        candidates = np.flatnonzero(self.prefixes[_prefixes(hashes, len(self.prefixes))])
        first = np.searchsorted(self.hashes, hashes[candidates])
        end = np.searchsorted(self.hashes, hashes[candidates], side="right")
        num_sets = end - first
        entries = np.arange(num_sets.sum()) + np.repeat(end - np.cumsum(num_sets), num_sets)
        return np.repeat(candidates, num_sets), self.sets[entries]


def _prefixes(hashes: npt.NDArray[np.uint64], num_prefixes: int) -> npt.NDArray[np.uint64]:
    """The first bits of hashes: numbers below a power of two."""
    return hashes >> np.uint64(65 - num_prefixes.bit_length())


def index_ngrams(texts_by_set: list[list[str]], shingling: Shingling) -> NgramIndex:
    """Index the n-grams of evaluation sets: up to 32 bytes for each n-gram of each set.

    Args:
        texts_by_set: The texts of each set.
        shingling: How texts are cut into n-grams.
    """
    hashes = [
        np.unique(shingle_hashes(TextBatch.from_texts(texts), shingling).hashes) for texts in texts_by_set
    ]
    all_hashes = np.concatenate(hashes)
    sets = np.repeat(np.arange(len(hashes)), [len(part) for part in hashes])
    order = np.argsort(all_hashes, kind="stable")
    prefixes = np.zeros(8 << len(all_hashes).bit_length(), np.bool_)
    prefixes[_prefixes(all_hashes, len(prefixes))] = True
    return NgramIndex(all_hashes[order], sets[order], prefixes)


@dataclass(frozen=True, kw_only=True)
class Decontamination(Scorer):
    """The share of a document that stands in evaluation sets, and in which.

    Words are compared as in near-duplicate search: without case, punctuation and accents, every number as 0. A
    document or evaluation text shorter than n words is compared as a whole: a document of 5 words is contaminated
    (1) when some evaluation text is the same 5 words, and clean (0) otherwise.

    One column names the set with most n-grams, rather than one column for each set: columns then do not depend on the
    recipe, so selections written for one list of sets work with another.

    Args:
        sets: Name -> path of an evaluation set, JSONL, gzipped where it ends in .gz.
        n: Words in an n-gram.
        fields: The fields of a record that hold texts, or lists of texts, each compared by itself. A record may lack
            some, but not all.
    """

    name: ClassVar[str] = "decontamination"
    version: ClassVar[int] = 1

    sets: dict[str, ModelPath]
    n: int = 13
    fields: tuple[str, ...] = ("text",)

    def __post_init__(self) -> None:
        if not self.sets:
            raise ValueError("sets is empty, must name at least one evaluation set")
        if "" in self.sets:
            raise ValueError("an evaluation set has no name, which is how clean documents are marked")
        if self.n < 1:
            raise ValueError(f"n is {self.n}, must be at least 1")

    @property
    def columns(self) -> tuple[Column, ...]:
        """The share and the set."""
        source = "Brown et al. 2020, Language models are few-shot learners, appendix C: 13-grams"
        return (
            Column(
                name="contamination",
                type=pa.float64(),
                description=f"Share of the document's distinct {self.n}-grams that occur in any evaluation set",
                unit="fraction",
                minimum=0,
                maximum=1,
                higher_is_better=False,
                empty=0.0,
                source=source,
                deviation="a share of n-grams, where GPT-3 cut out 200 characters around each; numbers are equal",
            ),
            Column(
                name="contaminated_by",
                type=pa.string(),
                description="The evaluation set with most of those n-grams, the first by name of several; "
                "empty for none",
                unit="evaluation set",
                empty="",
                source=source,
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The names and the bytes of the sets."""
        return {"sets": self._digest}

    def setup(self) -> None:
        """Read and index the sets."""
        _ = self._index

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Look up the n-grams of n documents."""
        hashes, offsets = shingle_hashes(batch, self._shingling)
        ngrams, sets = self._index.find(hashes)
        documents = np.searchsorted(offsets, ngrams, side="right") - 1
        num_sets = len(self._names)
        hits = np.bincount(documents * num_sets + sets, minlength=len(batch) * num_sets)
        hits = hits.reshape(len(batch), num_sets)
        num_found = np.bincount(documents[np.diff(ngrams, prepend=-1) > 0], minlength=len(batch))
        num_ngrams = np.diff(offsets)
        worst = np.where(num_found > 0, hits.argmax(axis=1), num_sets)
        return pa.RecordBatch.from_arrays(
            [
                pa.array(num_found / np.maximum(num_ngrams, 1)),
                pa.array([*self._names, ""], pa.string()).take(pa.array(worst)),
            ],
            schema=self.schema(),
        )

    @property
    def _shingling(self) -> Shingling:
        return Shingling(size=self.n)

    @property
    def _names(self) -> list[str]:
        return sorted(self.sets)

    @cached_property
    def _digest(self) -> str:
        digests = {}
        for name in self._names:
            try:
                with open(self.sets[name], "rb") as file:
                    digests[name] = hashlib.file_digest(file, "blake2b").hexdigest()
            except OSError as error:
                raise _unreadable(name, self.sets[name], str(error)) from error
        return hashlib.blake2b(json.dumps(digests).encode(), digest_size=16).hexdigest()

    @cached_property
    def _index(self) -> NgramIndex:
        texts = [list(_read_texts(name, self.sets[name], self.fields)) for name in self._names]
        return index_ngrams(texts, self._shingling)


def _read_texts(name: str, path: str, fields: tuple[str, ...]) -> Iterator[str]:
    """The texts of an evaluation set."""
    try:
        with gzip.open(path) if path.endswith(".gz") else Path(path).open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield from _texts_of(orjson.loads(line), fields, f"{path}, line {number}")
    except orjson.JSONDecodeError as error:
        raise _unreadable(name, path, f"line {number} is no JSON: {error}") from error
    except (OSError, EOFError) as error:
        raise _unreadable(name, path, str(error)) from error


def _texts_of(record: Any, fields: tuple[str, ...], place: str) -> Iterator[str]:
    """The texts that some fields of a record hold."""
    found = [record[field] for field in fields if field in record] if isinstance(record, dict) else []
    texts = [text for value in found for text in (value if isinstance(value, list) else [value])]
    texts = [text for text in texts if isinstance(text, str)]
    if not texts:
        raise ScorerError(
            f"decontamination.sets: {place}: no text in {', '.join(fields)}; name the fields that hold it in "
            "`fields`"
        )
    yield from texts


def _unreadable(name: str, path: str, reason: str) -> ScorerError:
    return ScorerError(f"decontamination.sets.{name}: {path} cannot be read ({reason})")
