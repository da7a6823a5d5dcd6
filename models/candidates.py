"""A set function of which only some documents may be chosen, while their worth counts all."""

from dataclasses import dataclass

from gristmill.models.similarity import Gains, Rows
from gristmill.models.submodular import SetFunction, State


@dataclass(frozen=True, eq=False)
class Candidates:
    """A function of some of its documents: row i is the i-th candidate.

    Args:
        function: Of n documents.
        rows: Candidates, int64[m].
    """

    function: SetFunction
    rows: Rows

    def __len__(self) -> int:
        return len(self.rows)

    def start(self, capacity: int, device: str, max_bytes: int, candidates: Rows | None = None) -> State:
        """The state of the whole function, asked for candidates alone."""
        rows = self.rows if candidates is None else self.rows[candidates]
        return _CandidatesState(self.function.start(capacity, device, max_bytes, rows), self.rows)


class _CandidatesState:
    def __init__(self, state: State, rows: Rows) -> None:
        self.state, self.rows = state, rows

    def all_gains(self) -> Gains | None:
        gains = self.state.all_gains()
        return None if gains is None else gains[self.rows]

    def gains(self, rows: Rows) -> Gains:
        return self.state.gains(self.rows[rows])

    def add(self, row: int) -> None:
        self.state.add(int(self.rows[row]))
