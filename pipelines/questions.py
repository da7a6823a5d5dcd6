"""Multiple-choice questions, and how often a language model finds the right answer the likeliest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.continuations import continuation_losses
from gristmill.models.language_model import LanguageModel
from gristmill.pipelines.recipe_inputs import Task
from gristmill.pipelines.score_documents import Shard, read_batches
from gristmill.pipelines.target import BLANK, answers_of, is_wanted, records
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError


@dataclass(frozen=True)
class Questions:
    """q questions with c answers in all, end to end.

    Args:
        prompts: What stands before the part that is judged, large_string[c].
        continuations: The part that is judged, large_string[c].
        offsets: Question i has the answers from offsets[i] to offsets[i + 1], int64[q + 1].
        right: Number of the right answer of each question, int64[q].
    """

    prompts: pa.LargeStringArray
    continuations: pa.LargeStringArray
    offsets: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]

    def sampled(self, max_questions: int) -> "Questions":
        """The same questions, or of too many a seeded sample."""
        if len(self.right) <= max_questions:
            return self
        chosen = np.sort(np.random.default_rng(0).choice(len(self.right), max_questions, replace=False))
        lengths = np.diff(self.offsets)[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        answers = pa.array(np.arange(offsets[-1]) + np.repeat(self.offsets[chosen] - offsets[:-1], lengths))
        return Questions(
            self.prompts.take(answers), self.continuations.take(answers), offsets, self.right[chosen]
        )


@dataclass(frozen=True)
class Accuracy:
    """How many questions were answered rightly.

    Args:
        num_questions: Asked.
        accuracy: Share answered rightly.
        standard_error: Of that share, by the binomial distribution.
        chance: Share that guessing gets right.
    """

    num_questions: int
    accuracy: float
    standard_error: float
    chance: float


def read_questions(
    workspace: Workspace, shards: Sequence[Shard], tasks: Sequence[Task], place: str
) -> dict[str, Questions]:
    """The questions of each task.

    Args:
        workspace: Where they were ingested.
        shards: Its shards.
        tasks: The recipe's.
        place: Where in the recipe they are, for errors.

    Raises:
        RecipeError: If a record is no question, or a task has none.
    """
    rules = {task.source: task for task in tasks}
    found: dict[str, list[tuple[list[tuple[str, str]], int]]] = {task.source: [] for task in tasks}
    for shard in shards:
        for batch in read_batches(workspace, shard.name):
            for _, text, fields in records(batch):
                rule = rules.get(fields["source"])
                if rule is not None and is_wanted(fields, rule):
                    choices, right = answers_of(fields, rule)
                    found[rule.source].append(([split_answer(text, choice) for choice in choices], right))
    for task in tasks:
        if not found[task.source]:
            raise RecipeError(f"{place}: {task.source} holds no question that `only` keeps")
    return {name: _questions(asked) for name, asked in found.items()}


def split_answer(question: str, choice: str) -> tuple[str, str]:
    """What a model is given of an answered question, and the part that is judged.

    A choice that fills a blank `_` is judged by what follows it, the partial evaluation of Trinh and Le (2018, arXiv
    1806.02847); any other choice is judged itself.
    """
    blank = BLANK.search(question)
    if blank is not None and question[blank.end() :].strip():
        return f"{question[: blank.start()]}{choice}", question[blank.end() :]
    prompt = question if blank is None else question[: blank.start()].rstrip()
    return prompt, f" {choice}"


def judge(language_model: LanguageModel, questions: Questions) -> Accuracy:
    """Let a model choose the answer with the highest likelihood a byte; of equals, the first."""
    losses = continuation_losses(language_model, questions.prompts, questions.continuations)
    losses /= _num_bytes(questions.continuations)
    chosen = [int(np.argmin(losses[start:end])) for start, end in pairwise(questions.offsets)]
    accuracy = float(np.mean(chosen == questions.right))
    num_questions = len(questions.right)
    error = math.sqrt(accuracy * (1 - accuracy) / num_questions)
    return Accuracy(num_questions, accuracy, error, float(np.mean(1 / np.diff(questions.offsets))))


def answer_losses(language_model: LanguageModel, questions: Questions) -> npt.NDArray[np.float64]:
    """-log2 p of the right answer of each question over its bytes, float64[q].

    It tells small models apart, which answer little better than chance.
    """
    right = questions.offsets[:-1] + questions.right
    prompts, answers = questions.prompts.take(right), questions.continuations.take(right)
    return continuation_losses(language_model, prompts, answers) / (math.log(2) * _num_bytes(answers))


def _num_bytes(continuations: pa.LargeStringArray) -> npt.NDArray[np.int64]:
    """UTF-8 bytes of n continuations without the space around them, int64[n]."""
    found: npt.NDArray[np.int64] = pc.binary_length(pc.utf8_trim_whitespace(continuations)).to_numpy()
    return found


def _questions(asked: Sequence[tuple[list[tuple[str, str]], int]]) -> Questions:
    pairs = [pair for answers, _ in asked for pair in answers]
    prompts, continuations = (pa.array(part, pa.large_string()) for part in zip(*pairs, strict=True))
    lengths = [len(answers) for answers, _ in asked]
    right = np.array([number for _, number in asked], np.int64)
    return Questions(prompts, continuations, np.cumsum([0, *lengths], dtype=np.int64), right)
