"""A ladder: models of one family, and which of them is better.

rungs = models given by their paths, or trained on samples of the corpus
order = benchmark averages where the recipe gives them, else bits a byte of the right answers of tasks
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models import language_model
from gristmill.models.language_model import SAMPLE, LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines.evaluate import cut_passages
from gristmill.pipelines.model_files import local_copy, model_path, read_manifest
from gristmill.pipelines.questions import Questions, answer_losses, read_questions
from gristmill.pipelines.recipe_inputs import Task
from gristmill.pipelines.recipe_models import Rung
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.train_language_models import pretrain, usable
from gristmill.pipelines.training import Training
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

MAX_QUESTIONS = 2000
"""Of each task, a seeded sample."""
Losses = Mapping[str, npt.NDArray[np.float64]]
"""Task -> bits a byte of each of its items under one model."""
Exam = Mapping[str, Callable[[LanguageModel], npt.NDArray[np.float64]]]
"""Task -> what tells the bits a byte of each of its items."""


@dataclass(frozen=True)
class OrderedRung:
    """A rung in its place.

    Args:
        title: What SQL and messages call it.
        path: Of its directory.
        average: Of its benchmark results, None where the recipe gives none.
        task_loss: Bits a byte of the right answers, None where it was not measured.
        sample: The documents it was trained on, None where it was given.
    """

    title: str
    path: str
    average: float | None
    task_loss: float | None
    sample: Sample | None


@dataclass(frozen=True)
class MeasuredRung:
    """A rung before it has its place.

    Args:
        number: In the recipe.
        spec: What the recipe says of it.
        path: Its local directory.
        losses: On every task; none where it is not measured.
    """

    number: int
    spec: Rung
    path: Path
    losses: Losses

    @property
    def mean_loss(self) -> float:
        """Mean over tasks of the mean over their items: every task counts alike; NaN where it is not measured."""
        return (
            float(np.mean([of_task.mean() for of_task in self.losses.values()])) if self.losses else math.nan
        )


def make_ladder(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train the rungs that are to be trained, measure them where that is wanted, and put them in order."""
    spec = training.models.ladder
    paths = [
        Path(local_copy(rung.path)) if rung.path is not None else train_rung(training, number, folder)
        for number, rung in enumerate(spec.rungs)
    ]
    warnings = family_warnings(spec.rungs, paths)
    exam, examined_by = make_exam(training)
    rungs = [
        MeasuredRung(number, rung, path, measure(path, exam))
        for number, (rung, path) in enumerate(zip(spec.rungs, paths, strict=True))
    ]
    if spec.has_averages:
        rungs.sort(key=lambda rung: rung.spec.average or 0.0)
        titles, means = [rung.spec.title for rung in rungs], [rung.mean_loss for rung in rungs]
        warnings += inversions("averages", examined_by, titles, means)
    else:
        rungs.sort(key=lambda rung: -rung.mean_loss)
        warnings += ties(rungs)
    for rung in rungs:
        if rung.spec.size is not None:
            shutil.copytree(rung.path, made / rung_folder(rung.number))
    return {
        "rungs": [
            {
                "rung": rung.spec.title,
                "folder": None if rung.spec.size is None else rung_folder(rung.number),
                "average": rung.spec.average,
                "task_loss": rung.mean_loss if exam else None,
                "identity": rung_identity(training, rung.spec),
                "sample": None if rung.spec.size is None else language_model.sample_of(str(rung.path)),
            }
            for rung in rungs
        ],
        "ordered_by": "averages" if spec.has_averages else examined_by,
        "warnings": warnings,
    }


def read_ladder(workspace: Workspace, rungs: Sequence[Rung]) -> list[OrderedRung]:
    """The rungs of the ladder in a workspace, the worst first.

    Args:
        workspace: Where it was made.
        rungs: The recipe's.
    """
    manifest = read_manifest(workspace, "ladder")
    if manifest is None:
        raise AssertionError("a ladder is made before what is made from it")
    given = {rung.title: rung.path for rung in rungs}
    return [
        OrderedRung(
            title=row["rung"],
            path=given[row["rung"]] or f"{model_path(workspace, 'ladder')}/{row['folder']}",
            average=row["average"],
            task_loss=row["task_loss"],
            sample=row["sample"] and Sample(*row["sample"]),
        )
        for row in manifest["rungs"]
    ]


def rung_folder(number: int) -> str:
    """Where a rung of the recipe that is trained lies in the ladder's folder."""
    return f"rung-{number}"


def train_rung(training: Training, number: int, folder: Path) -> Path:
    """Train one rung, unless the ladder of another recipe has it, or a killed training has finished it.

    Returns:
        The local folder of the model.
    """
    spec = training.models.ladder
    rung, work = spec.rungs[number], folder / rung_folder(number)
    done, made = work / "done", work / "made"
    if done.is_dir() or rung.size is None:
        return done
    before = read_manifest(training.workspace, "ladder")
    for row in before["rungs"] if before else []:
        if row["identity"] == rung_identity(training, rung):
            return Path(local_copy(f"{model_path(training.workspace, 'ladder')}/{row['folder']}"))
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(parents=True)
    facts = pretrain(f"ladder: {rung.title}", training, rung, rung.size, spec.seed, work, made)
    (made / SAMPLE).write_text(json.dumps(facts["sample"]))
    made.rename(done)
    return done


def rung_identity(training: Training, rung: Rung) -> str | None:
    """Hash of what a rung is trained from, but for the corpus; None for one that is given."""
    if rung.size is None:
        return None
    tokenizer = Tokenizer.digest(training.path("tokenizer"))
    said = [rung.model_dump(exclude={"average"}), training.models.ladder.seed, tokenizer]
    return blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


def family_warnings(rungs: Sequence[Rung], paths: Sequence[Path]) -> list[str]:
    """What to say of models that are not of one family."""
    found: dict[str, str] = {}
    for rung, path in zip(rungs, paths, strict=True):
        family = usable("models.ladder", partial(language_model.family_of, str(path)))
        found.setdefault(family, rung.title)
    if len(found) == 1:
        return []
    listed = "; ".join(f"{title} is {family}" for family, title in found.items())
    return [
        f"models.ladder: the rungs are of several families ({listed}); a mixed ladder selected no better than chance "
        "in the PreSelect paper"
    ]


def make_exam(training: Training) -> tuple[Exam, str]:
    """What the rungs are measured by, in code and in words.

    Nothing where averages order them and the recipe names no tasks.
    """
    spec = training.models.ladder
    if spec.tasks:
        asked = read_questions(
            training.task_workspace, training.task_shards, spec.tasks, "models.ladder.tasks"
        )
        return _exam_of(asked)
    if not spec.needs_target:
        return {}, ""
    entries = training.recipe.target
    tasks = [Task(**entry.model_dump()) for entry in entries if entry.choices is not None]
    if tasks:
        return _exam_of(read_questions(training.target_workspace, training.target, tasks, "target"))
    texts = [text for batch in training.held_out_documents() for text in batch["text"].to_pylist()]
    if not texts:
        texts = [text for batch in training.target_documents() for text in batch["text"].to_pylist()]
    passages = cut_passages(texts)
    if not len(passages):
        raise RecipeError("target: it holds no text; expected documents or questions to order the rungs by")
    return {
        "target": partial(passage_losses, passages=passages)
    }, "bits a byte of the target's held-out documents"


def _exam_of(asked: Mapping[str, Questions]) -> tuple[Exam, str]:
    exam = {
        task: partial(answer_losses, questions=questions.sampled(MAX_QUESTIONS))
        for task, questions in asked.items()
    }
    return exam, f"bits a byte of the right answers of {', '.join(asked)}"


def passage_losses(model: LanguageModel, passages: pa.LargeStringArray) -> npt.NDArray[np.float64]:
    """-log2 p of each of p passages over its UTF-8 bytes, float64[p]."""
    losses = model.losses(model.tokenizer.encode(passages), model.context, model.context)
    found: npt.NDArray[np.float64] = losses.nll / math.log(2) / pc.binary_length(passages).to_numpy()
    return found


def measure(path: Path, exam: Exam) -> Losses:
    """The losses of one model on every task."""
    if not exam:
        return {}
    model = usable("models.ladder", lambda: LanguageModel.load(str(path), "auto"))
    return {task: losses_of(model) for task, losses_of in exam.items()}


def ties(rungs: Sequence[MeasuredRung]) -> list[str]:
    """What to say of neighbours that the tasks hardly tell apart; the worst rung comes first."""
    return [
        f"models.ladder: {worse.spec.title} and {better.spec.title} are about equal on the tasks; which is better may "
        "be chance: train one of them longer, or leave it out"
        for worse, better in pairwise(rungs)
        if not is_apart(worse.losses, better.losses)
    ]


def is_apart(worse: Losses, better: Losses) -> bool:
    """Whether the mean loss of one model is above another's by more than twice the standard error."""
    gains = [worse[task] - better[task] for task in worse]
    variance = sum(gain.var() / len(gain) for gain in gains) / len(gains) ** 2
    return float(np.mean([gain.mean() for gain in gains])) > 2 * math.sqrt(variance)


def inversions(stated: str, measured: str, titles: Sequence[str], losses: Sequence[float]) -> list[str]:
    """What to say of neighbours whose order a measurement turns round.

    Args:
        stated: What orders the rungs.
        measured: What was measured.
        titles: Of the rungs, the worst first.
        losses: Of the rungs.
    """
    return [
        f"models.ladder: by {stated} {better} is better than {worse}, by {measured} it is worse ({won:.4f} against "
        f"{lost:.4f}); strength follows {stated}"
        for (worse, lost), (better, won) in pairwise(zip(titles, losses, strict=True))
        if won > lost
    ]
