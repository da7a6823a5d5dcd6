"""The scorer protocol: documents in, numbers out; a scorer never decides.

Errors a user can cause or cure, each one sentence that says what was found, what was expected and what to do:

    GristmillError
    |-- RecipeError      the recipe asks for something impossible
    |-- CorpusError      an input cannot be read or does not fit what was ingested before
    |-- ScorerError      a scorer cannot be built, or broke its contract on a shard
    |-- SelectionError   a selection cannot be made, or a keep rate left its bounds
    |-- WorkspaceError   the workspace is locked, damaged or of another format
    `-- QueryError       an SQL question that cannot be answered
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from gristmill.scorers.text import TextBatch


class GristmillError(Exception):
    """Base of every error that a user can cause or cure."""


class RecipeError(GristmillError):
    """The recipe asks for something impossible."""


class CorpusError(GristmillError):
    """An input cannot be read, or does not fit what was ingested before."""


class ScorerError(GristmillError):
    """A scorer cannot be built, or broke its contract."""


class SelectionError(GristmillError):
    """A selection cannot be made, or a keep rate left its bounds."""


class WorkspaceError(GristmillError):
    """The workspace is locked, damaged or of another format."""


class QueryError(GristmillError):
    """An SQL question that cannot be answered."""


@contextmanager
def loading(place: str, kind: str, error_type: type[GristmillError] = ScorerError) -> Iterator[None]:
    """Say in one line why a model cannot be used.

    Args:
        place: Where a recipe names it.
        kind: What it is, with its article.
        error_type: What is raised.

    Raises:
        GristmillError: Of this type, if its files are not there or do not fit, or what runs it is not installed.
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise error_type(f"{place}: {error}") from error
    except ImportError as error:
        raise error_type(
            f"{place}: {kind} needs torch and transformers ({error}); install gristmill[models]"
        ) from error


ModelPath = Annotated[str, "a path, relative to the recipe"]
"""Type of a scorer's option that points to a model or to data; also as `ModelPath | None`, `dict[str, ModelPath]`."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one score column means.

    Args:
        name: Column name, unique over all scorers, as published where a paper or tool published it.
        type: Arrow type of the values.
        description: The formula in words.
        unit: Unit of the values ("words", "fraction", "documents", ...).
        minimum: Smallest possible value, None where there is none or the type is not a number.
        maximum: Largest possible value, None where there is none or the type is not a number.
        higher_is_better: Direction; None where the field knows no better end.
        empty: The value for empty text.
        source: The paper section, specification or reference code it follows.
        deviation: How the value departs from that source, empty where it does not.
    """

    name: str
    type: pa.DataType
    description: str
    unit: str
    minimum: float | None = None
    maximum: float | None = None
    higher_is_better: bool | None = None
    empty: Any = 0
    source: str = ""
    deviation: str = ""


class Scorer(ABC):
    """Base of every scorer: a frozen dataclass whose fields are the options that change its numbers.

    A scorer is picklable before `setup`, which loads what is costly. Splitting or reordering a batch changes
    no document's score.
    """

    name: ClassVar[str]
    """The scorer's id in recipes, in SQL (`score_<name>`) and on disk."""
    version: ClassVar[int]
    """Raised by the author by hand whenever the numbers change."""
    accelerator: ClassVar[bool] = False
    """Whether the scorer runs a model over large batches, on a GPU where there is one."""
    tolerance: ClassVar[float] = 0.0
    """How far a document's scores may differ between batches: 0 for whole numbers, more for sums of many floats."""
    trained_models: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Options that a recipe may leave out, and the models trained in the workspace that they then point to."""

    @property
    @abstractmethod
    def columns(self) -> tuple[Column, ...]:
        """The columns `score` returns, in order."""

    def options(self) -> dict[str, Any]:
        """The options that change its numbers."""
        return asdict(self)  # type: ignore[call-overload]

    def model_digests(self) -> dict[str, str]:
        """Option name -> digest of the model bytes it points to; such options count by content, not by path."""
        return {}

    def setup(self) -> None:  # noqa: B027 (most scorers have nothing to load)
        """Load what is costly; called once in each worker before the first `score`."""

    @abstractmethod
    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Score one batch.

        Args:
            batch: The documents, n rows.

        Returns:
            n rows in the same order with exactly the declared columns, without nulls.
        """

    def schema(self) -> pa.Schema:
        """Arrow schema of what `score` returns."""
        return pa.schema([pa.field(column.name, column.type, nullable=False) for column in self.columns])

    def fingerprint(self) -> str:
        """Identity of the numbers: name, version, options and model bytes, as 16 hexadecimal digits."""
        options = self.options() | self.model_digests()
        identity = {"name": self.name, "version": self.version, "options": options}
        return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


class DerivedScorer(Scorer):
    """Base of scorers that see other scores in place of texts: `batch.documents` holds doc_id and the `inputs`.

    They are scored, and their models trained, after the scorers of texts. A subclass has an option `versions`, where
    the pipeline names the file that holds each input: `rps_doc_word_count: rules/0123456789abcdef`.
    """

    versions: Mapping[str, str]

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Columns of other scorers."""


class CorpusScorer(DerivedScorer):
    """Base of derived scorers that need all documents at once; a pipeline of their own scores the whole corpus.

    A subclass has an option `corpus`, where the pipeline puts the identity of all documents: with one more document,
    every score may be another.
    """

    corpus: str

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Refused: what a document scores depends on all others."""
        raise ScorerError(f"{self.name} scores the corpus as a whole, and no batch of it")
