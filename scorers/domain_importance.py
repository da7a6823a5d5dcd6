"""Importance weights for several domains: how much likelier a document's words are in each than in the pool."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from gristmill.models import ngram_counts
from gristmill.scorers.base import Column, ModelPath, Scorer
from gristmill.scorers.importance import Numbers, hash_ngrams, log_ratios, unusable, weigh, weight_columns
from gristmill.scorers.text import TextBatch


@dataclass(frozen=True, kw_only=True)
class DomainImportance(Scorer):
    """Importance weights of documents for each of some domains, as `importance` has them for the target.

    Args:
        model: A folder with a folder for each domain, which holds an `ngram_counts.npy`; all have as many buckets.
        domains: Their names.
    """

    name: ClassVar[str] = "domain_importance"
    version: ClassVar[int] = 1
    trained_models: ClassVar[dict[str, str]] = {"model": "domain_importance"}

    model: ModelPath
    domains: tuple[str, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The weight for each domain and its mean over n-grams, under the names of Meta-rater's signals."""
        return tuple(column for domain in self.domains for column in weight_columns(f"dsir_{domain}", domain))

    def model_digests(self) -> dict[str, str]:
        """The bytes of the counts, domain by domain."""
        try:
            return {"model": " ".join(ngram_counts.digest(self._folder(domain)) for domain in self.domains)}
        except OSError as error:
            raise unusable(self.name, error) from error

    def setup(self) -> None:
        """Load the counts."""
        _ = self._log_ratios

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Weigh n documents."""
        ngrams = hash_ngrams(batch, len(self._log_ratios[0]))
        weights = [
            pa.array(column) for ratios in self._log_ratios for column in weigh(ngrams, ratios, len(batch))
        ]
        return pa.RecordBatch.from_arrays(weights, schema=self.schema())

    @cached_property
    def _log_ratios(self) -> list[Numbers]:
        try:
            return [log_ratios(ngram_counts.load(self._folder(domain))) for domain in self.domains]
        except (OSError, ValueError) as error:
            raise unusable(self.name, error) from error

    def _folder(self, domain: str) -> str:
        return str(Path(self.model) / domain)
