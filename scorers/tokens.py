"""The number of tokens of a document, so that budgets can be tokens."""

from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import pyarrow as pa

from gristmill.models.tokenizer import Tokenizer
from gristmill.scorers.base import Column, ModelPath, Scorer, ScorerError
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class Tokens(Scorer):
    """Counts tokens with a Hugging Face tokenizer.

    Args:
        tokenizer: A `tokenizer.json`, or a folder that holds one.
    """

    name: ClassVar[str] = "tokens"
    version: ClassVar[int] = 1

    tokenizer: ModelPath

    @property
    def columns(self) -> tuple[Column, ...]:
        """The count, which budgets `of: tokens` sum."""
        return (
            Column(
                name="num_tokens",
                type=pa.int64(),
                description="Tokens of the text, special ones around it not counted",
                unit="tokens",
                minimum=0,
                source="Hugging Face tokenizers",
            ),
        )

    def model_digests(self) -> dict[str, str]:
        """The tokenizer's bytes."""
        try:
            return {"tokenizer": Tokenizer.digest(self.tokenizer)}
        except OSError as error:
            raise ScorerError(
                f"tokens.tokenizer: {self.tokenizer} cannot be read ({error.strerror})"
            ) from error

    def setup(self) -> None:
        """Load the tokenizer."""
        _ = self._tokenizer

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Count the tokens of n documents."""
        return pa.RecordBatch.from_arrays([pa.array(self._tokenizer.count(batch.text))], schema=self.schema())

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        try:
            return Tokenizer.load(self.tokenizer)
        except (OSError, ValueError) as error:
            raise ScorerError(f"tokens.tokenizer: {error}") from error
