"""Gains in facility location while documents are chosen: exact, and by as few similarities as that takes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from gristmill.models.similarity import UNIT, Gains, Rows, Similarities
from gristmill.models.uncovered import UncoveredPairs, find_uncovered

if TYPE_CHECKING:
    import torch


class FacilityLocationState:
    """What each candidate would add to those chosen: similarity of all documents to the most similar of them.

    A look compares one candidate with all documents. Gains of all candidates are kept up to date by comparing with them
    the documents that a choice covers better than before, which are fewer and fewer: less work than to look at stale
    candidates again. When half as much has been compared as it takes to list the pairs that still count, and these are
    few, they are listed, and gains take a walk along a list.

    Args:
        similarities: Of n documents.
        candidates: What may be chosen, in ascending order, int64[m].
        list_bytes: Of lists at most.
    """

    def __init__(self, similarities: Similarities, candidates: Rows, list_bytes: int) -> None:
        import torch

        self.similarities, self.list_bytes = similarities, list_bytes
        self.device = similarities.features.device
        self.candidates = torch.from_numpy(candidates).to(self.device)
        self.is_all = len(candidates) == len(similarities)
        self.covered = torch.zeros(len(similarities), device=self.device)
        self.known: torch.Tensor | None = None
        self.covered_when_known = self.covered
        self.pairs: UncoveredPairs | None = None
        self.num_compared = 0

    def all_gains(self) -> Gains | None:
        """Gains of all candidates, float64[n]; None once pairs are listed, or where it was not asked from the start."""
        if self.pairs is None and self.known is None and not self.covered.any():
            self._know_first_gains()
        if self.known is None:
            return None
        self._update_known()
        gains = (self.known / UNIT).cpu().numpy()
        self._list_pairs_in_time()
        return gains

    def gains(self, rows: Rows) -> Gains:
        """Gains of some candidates, float64[m]."""
        import torch

        self._list_pairs_in_time()
        if self.pairs is not None:
            return self.pairs.gains(rows) / UNIT
        return (self._look(torch.from_numpy(rows).to(self.device)) / UNIT).cpu().numpy()

    def add(self, row: int) -> None:
        """Choose a candidate."""
        import torch

        if self.pairs is not None:
            self.pairs.add(row)
        else:
            torch.maximum(self.covered, self.similarities.row(row), out=self.covered)

    def _look(self, rows: "torch.Tensor") -> "torch.Tensor":
        import torch

        sums = torch.zeros(len(rows), dtype=torch.float64, device=self.device)
        start = 0
        for part in self.similarities.row_blocks(rows):
            for columns in self.similarities.columns(len(part)):
                block = self.similarities.block(part, columns)
                torch.maximum(block, self.covered[columns], out=block)
                sums[start : start + len(part)] += block.double().sum(dim=1)
            start += len(part)
        self.num_compared += len(rows) * len(self.similarities)
        return sums - self.covered.double().sum()

    def _know_first_gains(self) -> None:
        import torch

        if self.is_all:
            self.known = self.similarities.sums()
        else:
            self.known = torch.zeros(len(self.similarities), dtype=torch.float64, device=self.device)
            self.known[self.candidates] = self._look(self.candidates)
        self.covered_when_known = self.covered.clone()

    def _update_known(self) -> None:
        """Take from gains what the documents covered better no longer add to them."""
        import torch

        assert self.known is not None
        changed = (self.covered > self.covered_when_known).nonzero()[:, 0]
        for part in self.similarities.row_blocks(changed):
            before, after = self.covered_when_known[part, None], self.covered[part, None]
            for columns in self._candidate_columns(len(part)):
                block = self.similarities.block(part, columns)
                torch.maximum(torch.minimum(block, after, out=block), before, out=block)
                self.known[columns] -= block.double().sum(dim=0) - before.double().sum()
        self.covered_when_known = self.covered.clone()
        self.num_compared += len(changed) * len(self.candidates)

    def _candidate_columns(self, num_rows: int) -> "Iterator[slice] | Iterator[torch.Tensor]":
        if self.is_all:
            return self.similarities.columns(num_rows)
        return self.similarities.some_columns(num_rows, self.candidates)

    def _list_pairs_in_time(self) -> None:
        if self.pairs is not None or 2 * self.num_compared < len(self.candidates) * len(self.similarities):
            return
        self.num_compared = 0
        self.pairs = find_uncovered(self.similarities, self.covered, self.candidates, self.list_bytes)
        if self.pairs is not None:
            self.similarities.kept = self.known = None
