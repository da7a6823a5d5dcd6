"""Learning-rate schedules: the share of the peak rate that each step of a training takes."""

import math
from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """How the learning rate goes up and down."""

    def share(self, step: int, num_steps: int) -> float:
        """Share of the peak rate at a step (from 0) of so many, above 0 and at most 1."""


@dataclass(frozen=True)
class Cosine:
    """Linear warm-up, then a cosine down to a tenth of the peak.

    Args:
        warmup_share: Share of the steps over which the rate rises.
    """

    warmup_share: float = 0.05

    def share(self, step: int, num_steps: int) -> float:
        """Share of the peak rate at a step (from 0) of so many."""
        warmup = max(round(self.warmup_share * num_steps), 1)
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(num_steps - warmup, 1)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))


COSINE = Cosine()
"""The schedule of the CoLoR-Filter paper."""


@dataclass(frozen=True)
class WarmupStableDecay:
    """Linear warm-up, the peak, then a linear decay towards zero (Hu et al. 2024, arXiv 2404.06395).

    Trainings of different lengths take the same steps until the shortest decays, so a long one can go on from where a
    short one began to decay. The linear decay over 20 % of the steps is that of Hägele et al. 2024 (arXiv 2405.18392).

    Args:
        warmup_steps: Steps over which the rate rises, at least 1.
        decay_share: Share of the steps over which it falls.
    """

    warmup_steps: int
    decay_share: float = 0.2

    def decay_start(self, num_steps: int) -> int:
        """Steps before the decay."""
        return num_steps - round(self.decay_share * num_steps)

    def share(self, step: int, num_steps: int) -> float:
        """Share of the peak rate at a step (from 0) of so many."""
        start = self.decay_start(num_steps)
        if step < start:
            return min((step + 1) / self.warmup_steps, 1.0)
        return (num_steps - step) / (num_steps - start + 1)
