"""What ablations tell: loss and accuracy over seeds, and how many random tokens match a selection's."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from gristmill.pipelines.ablation_streams import RANDOM
from gristmill.pipelines.questions import Accuracy

FOLDER = "ablations"


@dataclass(frozen=True)
class Result:
    """One training, judged.

    Args:
        selection: What it was trained on, `random` for random documents.
        seed: Of weights, sample and order.
        multiple: Its length, in lengths of the shortest.
        num_tokens: Its length.
        epochs: Times that it saw its documents.
        training_loss: Of the last step, in nats a token.
        bits_per_byte: Of the held-out documents.
        tasks: Task -> accuracy.
        seconds: Of training, without what a fork saved.
    """

    selection: str
    seed: int
    multiple: int
    num_tokens: int
    epochs: float
    training_loss: float
    bits_per_byte: float
    tasks: dict[str, Accuracy]
    seconds: float

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Result":
        """What was committed."""
        fields = {name: value for name, value in content.items() if name != "identity"}
        return cls(**fields | {"tasks": {name: Accuracy(**found) for name, found in fields["tasks"].items()}})

    @property
    def path(self) -> tuple[str, str, str]:
        """Where it lies in the workspace."""
        return result_path(self.selection, self.seed, self.multiple)


def result_path(selection: str, seed: int, multiple: int) -> tuple[str, str, str]:
    """Where one training's result lies in a workspace."""
    return FOLDER, selection, f"seed-{seed}-{multiple}x.json"


@dataclass(frozen=True)
class Multiplier:
    """How many times as many random tokens reach the loss of a selection.

    Args:
        bound: `=`, or where the observed trainings do not reach it, `<` or `>`.
        value: Times, or the bound of the observed.
    """

    bound: str
    value: float

    def __str__(self) -> str:
        return f"{'' if self.bound == '=' else self.bound + ' '}{self.value:.3g}x"


@dataclass(frozen=True)
class Comparison:
    """What one length of training on a selection, or on random documents, reaches over all seeds.

    Args:
        selection: `random` for random documents.
        multiple: Its length, in lengths of the shortest.
        num_tokens: Its length.
        epochs: Times that it saw its documents, the mean over seeds.
        bits_per_byte: Mean over seeds.
        deviation: Standard deviation over seeds, None for one seed.
        multiplier: Of the mean losses; None for random documents.
        multipliers: Of each seed against random documents of the same seed.
        tasks: Task -> accuracy, the mean over seeds, with the standard error of one seed.
    """

    selection: str
    multiple: int
    num_tokens: int
    epochs: float
    bits_per_byte: float
    deviation: float | None
    multiplier: Multiplier | None
    multipliers: tuple[Multiplier, ...]
    tasks: dict[str, Accuracy]


@dataclass(frozen=True)
class Report:
    """Every comparison, random documents first."""

    comparisons: tuple[Comparison, ...]

    def as_json(self) -> list[dict[str, Any]]:
        """What is written beside the results."""
        return [asdict(comparison) for comparison in self.comparisons]

    def table(self) -> list[dict[str, Any]]:
        """Rows to print."""
        return [_row(comparison) for comparison in self.comparisons]


def tokens_to_match(loss: float, multiples: Sequence[float], losses: Sequence[float]) -> Multiplier:
    """How many times as many random tokens reach a loss, by CoLoR-Filter's question (arXiv 2406.10670, figure 1).

    Between two observed lengths the loss is taken to be linear in the logarithm of the length; beyond the observed ones
    nothing is claimed. Where the curve of random documents is not monotone, the first length to reach the loss counts.

    Args:
        loss: Of a selection.
        multiples: Lengths of trainings on random documents, ascending.
        losses: What each of them reaches.
    """
    if loss > losses[0]:
        return Multiplier("<", multiples[0])
    for number, reached in enumerate(losses):
        if reached <= loss:
            if number == 0:
                return Multiplier("=", multiples[0])
            before, after = losses[number - 1], reached
            share = (before - loss) / (before - after)
            low, high = math.log(multiples[number - 1]), math.log(multiples[number])
            return Multiplier("=", math.exp(low + share * (high - low)))
    return Multiplier(">", multiples[-1])


def summarise(results: Sequence[Result]) -> Report:
    """Compare trainings over their seeds."""
    kinds = sorted({(result.selection != RANDOM, result.selection, result.multiple) for result in results})
    groups = {
        (selection, multiple): [
            result for result in results if (result.selection, result.multiple) == (selection, multiple)
        ]
        for _, selection, multiple in kinds
    }
    multiples = [multiple for selection, multiple in groups if selection == RANDOM]
    curve = [_mean_loss(groups[RANDOM, multiple]) for multiple in multiples]
    of_seed = {
        result.seed: [
            next(found.bits_per_byte for found in groups[RANDOM, multiple] if found.seed == result.seed)
            for multiple in multiples
        ]
        for result in groups[RANDOM, multiples[0]]
    }
    comparisons = []
    for (selection, multiple), group in groups.items():
        is_random = selection == RANDOM
        comparisons.append(
            Comparison(
                selection=selection,
                multiple=multiple,
                num_tokens=group[0].num_tokens,
                epochs=fmean(result.epochs for result in group),
                bits_per_byte=_mean_loss(group),
                deviation=stdev(result.bits_per_byte for result in group) if len(group) > 1 else None,
                multiplier=None if is_random else tokens_to_match(_mean_loss(group), multiples, curve),
                multipliers=()
                if is_random
                else tuple(
                    tokens_to_match(result.bits_per_byte, multiples, of_seed[result.seed]) for result in group
                ),
                tasks={name: _mean_accuracy(name, group) for name in group[0].tasks},
            )
        )
    return Report(tuple(comparisons))


def _mean_loss(group: Sequence[Result]) -> float:
    return fmean(result.bits_per_byte for result in group)


def _mean_accuracy(task: str, group: Sequence[Result]) -> Accuracy:
    found = [result.tasks[task] for result in group]
    accuracy = fmean(one.accuracy for one in found)
    error = math.sqrt(accuracy * (1 - accuracy) / found[0].num_questions)
    return Accuracy(found[0].num_questions, accuracy, error, found[0].chance)


def _row(comparison: Comparison) -> dict[str, Any]:
    spread = "" if comparison.deviation is None else f" ± {comparison.deviation:.4f}"
    tasks = {
        f"{name} (chance {found.chance:.0%})": f"{found.accuracy:.1%} ± {found.standard_error:.1%}"
        for name, found in comparison.tasks.items()
    }
    return {
        "trained on": comparison.selection,
        "tokens": comparison.num_tokens,
        "epochs": f"{comparison.epochs:.2g}",
        "bits per byte": f"{comparison.bits_per_byte:.4f}{spread}",
        "random tokens to match": "" if comparison.multiplier is None else str(comparison.multiplier),
        "by seed": ", ".join(map(str, comparison.multipliers)),
        **tasks,
    }
