"""What ablations judge a language model by: bits per byte of held-out documents, and multiple-choice questions."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.language_model import LanguageModel, TextLosses
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.questions import Accuracy, Questions, judge, read_questions
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.target import target_texts, target_workspace
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

PASSAGE_CHARS = 2000
MAX_PASSAGES = 500
"""About a megabyte: the spread over seeds is larger than what more would tell."""


@dataclass(frozen=True)
class Judgement:
    """What a model achieves.

    Args:
        bits_per_byte: Of the held-out passages, by UTF-8 bytes.
        tasks: Task -> how many questions it answers rightly.
    """

    bits_per_byte: float
    tasks: dict[str, Accuracy]


@dataclass(frozen=True)
class Evaluation:
    """Held-out passages and questions.

    Args:
        passages: Texts, large_string[p], p > 0.
        tasks: Task -> its questions.
    """

    passages: pa.LargeStringArray
    tasks: dict[str, Questions]

    @property
    def identity(self) -> str:
        """Hash of all it asks."""
        state = blake2b(json.dumps(self.passages.to_pylist()).encode(), digest_size=16)
        for name, asked in sorted(self.tasks.items()):
            texts = [asked.prompts.to_pylist(), asked.continuations.to_pylist()]
            state.update(json.dumps([name, *texts, asked.right.tolist()]).encode())
        return state.hexdigest()

    def judge(self, language_model: LanguageModel) -> Judgement:
        """What a model achieves."""
        tasks = {name: judge(language_model, questions) for name, questions in self.tasks.items()}
        return Judgement(bits_per_byte(language_model, self.passages), tasks)


def bits_per_byte(language_model: LanguageModel, texts: pa.LargeStringArray) -> float:
    """-log2 p of texts over their UTF-8 bytes, each cut into windows of the model's context."""
    losses = text_losses(language_model, texts)
    return float(losses.nll.sum()) / math.log(2) / pc.sum(pc.binary_length(texts)).as_py()


def text_losses(language_model: LanguageModel, texts: pa.LargeStringArray) -> TextLosses:
    """Losses of texts, each cut into windows of the model's context."""
    context = language_model.context
    return language_model.losses(language_model.tokenizer.encode(texts), context, context)


def read_evaluation(curation: Curation, training: Training) -> Evaluation:
    """The documents and questions that a recipe judges by, ingested where they are not yet.

    Raises:
        RecipeError: If there is no text, or a task is none.
    """
    spec = curation.recipe.ablate
    passages = read_passages(curation, training)
    tasks = {}
    if spec.tasks:
        tasks = read_questions(*_ingest(curation, training.workspace, spec.tasks), spec.tasks, "ablate.tasks")
    return Evaluation(passages, tasks)


def read_passages(
    curation: Curation, training: Training, max_passages: int = MAX_PASSAGES
) -> pa.LargeStringArray:
    """Passages of the documents that a recipe judges by: those it holds out, or those of its target.

    Raises:
        RecipeError: If there is no text.
    """
    spec = curation.recipe.ablate
    if spec.held_out:
        workspace, shards = _ingest(curation, training.workspace, spec.held_out)
        batches = target_texts(workspace, shards, spec.held_out)
    else:
        batches = training.held_out_documents()
    passages = cut_passages((text for batch in batches for text in batch["text"].to_pylist()), max_passages)
    if not len(passages):
        raise RecipeError(
            "ablate: no held-out text to judge by; expected a target of more documents, or `ablate.held_out`"
        )
    return passages


def cut_passages(texts: Iterable[str], max_passages: int = MAX_PASSAGES) -> pa.LargeStringArray:
    """Texts cut into passages, and of too many a seeded sample."""
    passages = [
        text[start : start + PASSAGE_CHARS] for text in texts for start in range(0, len(text), PASSAGE_CHARS)
    ]
    if len(passages) > max_passages:
        chosen = np.random.default_rng(0).choice(len(passages), max_passages, replace=False)
        passages = [passages[number] for number in sorted(chosen.tolist())]
    return pa.array(passages, pa.large_string())


def _ingest(
    curation: Curation, workspace: Workspace, entries: Sequence[Target]
) -> tuple[Workspace, list[Shard]]:
    """Inputs in a workspace of their own."""
    beside = target_workspace(workspace, entries, "evaluation")
    return beside, curation.ingest_beside(beside, entries)
