"""Choose documents one after another, each the one that adds most to a set function.

For a monotone submodular function the chosen set reaches 1 - 1/e of the best of its size (naive and lazy), and
1 - 1/e - epsilon in expectation (stochastic). With costs the document of the most gain per cost comes first, and the
result is the better of that list and the best single document, which reaches (1 - 1/e) / 2 of the best within budget.

Sources: lazy, Minoux 1978; stochastic, "Lazier than lazy greedy", arXiv 1409.7938, with samples of
(n / budget) ln(1 / epsilon) from the true budget, where INGENIOUS' code takes them from a budget of n - 1: two
candidates a step, and an order that is nearly random; costs, Khuller, Moss and Naor 1999.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal

import numpy as np
import numpy.typing as npt

from gristmill.models.similarity import Gains, Rows
from gristmill.models.submodular import SetFunction, State

Optimizer = Literal["lazy", "naive", "stochastic"]

FIRST_BATCH = 16
"""Stale candidates that lazy greedy looks at first in a step, as one matrix product; then twice as many, and so on."""


@dataclass(frozen=True)
class Ranking:
    """Documents in the order in which they were chosen.

    Args:
        order: Rows, int64[k].
        gains: What each added when it was chosen, float64[k]; their sum is the function of the set.
        num_chosen: How many are within the budget; those after it are ranked only.
    """

    order: Rows
    gains: Gains
    num_chosen: int


def choose(
    function: SetFunction,
    budget: float,
    *,
    optimizer: Optimizer = "lazy",
    costs: Gains | None = None,
    keys: npt.NDArray[np.generic] | None = None,
    rank_all: bool = False,
    seed: int = 0,
    epsilon: float = 0.1,
    max_bytes: int = 2**30,
    device: str = "cpu",
) -> Ranking:
    """Choose documents greedily until nothing fits into the budget.

    Lazy finds the same order as naive, to the last one, and looks at few candidates. A document that adds nothing, or
    takes away, is chosen too where the budget has room; a budget of all documents or more ranks them all.

    Args:
        function: Of n documents.
        budget: Of documents, or of costs; at least 0.
        optimizer: `lazy`, `naive` or `stochastic`.
        costs: Above 0, float64[n]; None for 1 each.
        keys: What orders documents of equal gain, smallest first, [n]; None for their rows.
        rank_all: Whether to go on beyond the budget, until every document has a gain.
        seed: Of stochastic samples.
        epsilon: Of stochastic samples, between 0 and 1.
        max_bytes: Of similarities, and what is made of them, at any time.
        device: Where to compute.

    Raises:
        ValueError: If a budget, cost or epsilon is out of range.
    """
    num_rows = len(function)
    prices = np.ones(num_rows) if costs is None else np.asarray(costs, np.float64)
    _check(num_rows, budget, prices, epsilon)
    by_key = np.arange(num_rows) if keys is None else np.argsort(keys, kind="stable")
    if num_rows == 0:
        return Ranking(by_key, np.zeros(0), 0)
    strategy = _strategy(optimizer, num_rows, budget / float(prices.mean()), epsilon, seed)
    capacity = num_rows if rank_all else int(min(num_rows, budget / prices.min()))

    def start() -> _Run:
        return _Run(function.start(capacity, device, max_bytes), by_key, prices[by_key])

    run = start()
    single = None if costs is None else _best_single(run, budget)
    run.fill(strategy, budget)
    if single is not None and single[1] > sum(run.gains):
        run = start()
        run.add(single[0])
        run.fill(strategy, budget)
    num_chosen = len(run.order)
    if rank_all:
        run.fill(strategy, np.inf)
    return Ranking(np.array(run.order, np.int64), np.array(run.gains, np.float64), num_chosen)


class _Run:
    """Candidates in the order of their keys, so that the first of the greatest gain is the one to choose.

    Args:
        state: Of the function, with nothing chosen.
        rows: Of the candidates, int64[n].
        costs: float64[n].
    """

    def __init__(self, state: State, rows: Rows, costs: Gains) -> None:
        self.state, self.rows, self.costs = state, rows, costs
        self.bounds = np.full(len(rows), np.inf)
        """What each adds at most: its gain when it was last computed."""
        self.is_left = np.ones(len(rows), np.bool_)
        self.spent = 0.0
        self.order: list[int] = []
        self.gains: list[float] = []

    def fill(self, strategy: "Strategy", budget: float) -> None:
        """Choose until nothing that is left fits."""
        for place in strategy(self, budget):
            self.add(place)

    def fitting(self, budget: float) -> Rows:
        """Places of what is left and fits."""
        return np.flatnonzero(self.is_left & (self.costs <= budget - self.spent))

    def add(self, place: int) -> None:
        """Choose the candidate at a place, whose bound is its gain."""
        self.state.add(int(self.rows[place]))
        self.order.append(int(self.rows[place]))
        self.gains.append(float(self.bounds[place]))
        self.spent += float(self.costs[place])
        self.is_left[place] = False

    def evaluate_all(self) -> bool:
        """Bring all bounds up to date if that is cheap; returns whether it is."""
        gains = self.state.all_gains()
        if gains is None:
            return False
        self.bounds = gains[self.rows]
        return True

    def evaluate(self, places: Rows) -> Gains:
        """Compute gains of candidates; returns them per cost, float64[m]."""
        self.bounds[places] = self.state.gains(self.rows[places])
        return self.bounds[places] / self.costs[places]


Strategy = Callable[[_Run, float], Iterator[int]]
"""A run and a budget -> places to choose one after another, each with its bound up to date, while anything fits."""


def _strategy(optimizer: Optimizer, num_rows: int, num_budget: float, epsilon: float, seed: int) -> Strategy:
    rng = np.random.default_rng(seed)
    num_sample = max(int(np.ceil(num_rows / max(num_budget, 1) * np.log(1 / epsilon))), 1)

    def best_of_samples(run: _Run, budget: float) -> Iterator[int]:
        while len(places := run.fitting(budget)):
            if num_sample < len(places):
                places = np.sort(rng.choice(places, num_sample, replace=False, shuffle=False))
            yield int(places[np.argmax(run.evaluate(places))])

    return {"lazy": _lazily, "naive": _naively, "stochastic": best_of_samples}[optimizer]


def _naively(run: _Run, budget: float) -> Iterator[int]:
    while len(places := run.fitting(budget)):
        yield int(places[np.argmax(run.evaluate(places))])


def _lazily(run: _Run, budget: float) -> Iterator[int]:
    """What naive greedy chooses: by all gains where they are at hand, else by those that may be the greatest."""
    while run.evaluate_all():
        places = run.fitting(budget)
        if len(places) == 0:
            return
        yield int(places[np.argmax(run.bounds[places] / run.costs[places])])
    yield from _by_stale_bounds(run, budget)


def _by_stale_bounds(run: _Run, budget: float) -> Iterator[int]:
    """Evaluates the candidate of the greatest bound, and a few next to it, until the first is up to date."""
    places, costs = run.fitting(budget), run.costs.tolist()
    heap = list(zip((-run.bounds[places] / run.costs[places]).tolist(), places.tolist(), strict=True))
    heapify(heap)
    fresh: set[int] = set()
    num_batch = FIRST_BATCH
    while heap:
        if heap[0][1] in fresh:
            yield heappop(heap)[1]
            fresh, num_batch = set(), FIRST_BATCH
            continue
        stale: list[int] = []
        left = budget - run.spent
        while heap and len(stale) < num_batch and heap[0][1] not in fresh:
            place = heappop(heap)[1]
            if costs[place] <= left:
                stale.append(place)
        if stale:
            for ratio, place in zip(run.evaluate(np.array(stale)).tolist(), stale, strict=True):
                heappush(heap, (-ratio, place))
            fresh.update(stale)
            num_batch *= 2


def _best_single(run: _Run, budget: float) -> tuple[int, float] | None:
    """Place and gain of the document that alone adds most, None if none fits."""
    run.evaluate_all()
    gains = np.where(run.costs <= budget, run.bounds, -np.inf)
    place = int(np.argmax(gains))
    return (place, float(gains[place])) if np.isfinite(gains[place]) else None


def _check(num_rows: int, budget: float, costs: Gains, epsilon: float) -> None:
    if not budget >= 0:
        raise ValueError(f"budget {budget}; expected 0 or more")
    if costs.shape != (num_rows,) or not (np.isfinite(costs) & (costs > 0)).all():
        raise ValueError(f"costs of shape {costs.shape}; expected {num_rows} finite numbers above 0")
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon {epsilon}; expected a number between 0 and 1")
