"""Fine-tunes an encoder as a rater of one dimension; what it leaves is a Hugging Face sequence classification.

The settings are those of Meta-rater's script (arXiv 2504.14194): AdamW, a cosine from 5e-5, weight decay 0.01, batches
of 64, at most 10 epochs, 2,048 tokens, the checkpoint with the best macro-F1 on texts of their own, seed 42. What
departs from it: the checkpoint is chosen after each epoch and not every 200 steps, a regression by Spearman, training
is in float32 with bfloat16 products on a GPU and not in float16, the cosine ends at a tenth of its peak, and texts are
rated by all their windows, though only the first is trained on.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.models.checkpoint import read_metadata, restore_checkpoint, save_checkpoint
from gristmill.models.hugging_face import check_files, on_device
from gristmill.models.padded_windows import pad_windows
from gristmill.models.rater import RATER_FILE, Reading
from gristmill.models.rater_training import Kind, LabelledTexts, check_parts, selection_score
from gristmill.models.schedule import COSINE
from gristmill.models.sequence_classifier import KIND, SequenceClassifier, plan_reading
from gristmill.models.tokenizer import CONFIG_FILE as TOKENIZER_CONFIG
from gristmill.models.tokenizer import tokenizer_file
from gristmill.models.training import order_sequences
from gristmill.models.windows import split_windows

BEST, CANDIDATE, CHECKPOINT = "best", "candidate", "checkpoint.safetensors"
WEIGHT_DECAY, MAX_NORM = 0.01, 1.0
MICRO_BATCH = 16
"""Texts whose gradients are in memory at once."""


@dataclass(frozen=True)
class FineTuning:
    """How an encoder is fine-tuned.

    Args:
        epochs: Passes over the texts.
        batch_size: Texts of a step.
        learning_rate: Peak of the cosine.
        window: Tokens of a text that are read together, at most what the encoder reads at once.
        seed: Of the new head, the order of the texts and dropout.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-5
    window: int = 2048
    seed: int = 42


def fine_tune(
    encoder: str,
    train: LabelledTexts,
    val: LabelledTexts,
    kind: Kind,
    plan: FineTuning,
    folder: Path,
    start: Callable[[int], None],
    report: Callable[[int, int], None],
) -> list[float]:
    """Fine-tune an encoder; a training that was killed goes on from its last epoch.

    Labels of a regression are learnt as they are; give them a scale of about 1.

    Args:
        encoder: Hugging Face directory, weights from safetensors.
        train: What it learns from.
        val: What the epoch is chosen by.
        kind: A class for each different label, worth that label, or a regression.
        plan: How.
        folder: Where it works; the best model lies in its folder `best` afterwards.
        start: Called once with the tokens of all epochs.
        report: Called after each step with its number and the tokens seen so far.

    Returns:
        Macro-F1 or Spearman on `val` after each epoch.

    Raises:
        ValueError: If the encoder cannot be used, a part has no text, or the loss is no longer finite.
    """
    import torch

    check_parts(train, val)
    classes = np.unique(train.labels) if kind == "classification" else None
    with torch.random.fork_rng():
        torch.manual_seed(plan.seed)
        model = _with_head(encoder, classes, plan.window, folder / CANDIDATE)
        optimizer = torch.optim.AdamW(model.parameters(), lr=plan.learning_rate, weight_decay=WEIGHT_DECAY)
        batches = _Batches(folder / CANDIDATE, train, classes)
        steps = [
            np.array_split(order, -(-len(order) // plan.batch_size))
            for order in order_sequences(len(train.labels), plan.epochs, plan.seed)
        ]
        num_steps = sum(map(len, steps))
        start(plan.epochs * batches.num_tokens)
        scores: list[float] = []
        with on_device(model):
            if (folder / CHECKPOINT).is_file():
                scores = json.loads(read_metadata(folder / CHECKPOINT)["scores"])
                done = sum(map(len, steps[: len(scores)]))
                restore_checkpoint(folder / CHECKPOINT, model, optimizer, done)
            for epoch in range(len(scores), plan.epochs):
                torch.manual_seed(plan.seed + 1 + epoch)  # of dropout, the same after an interruption
                done = sum(map(len, steps[:epoch]))
                for step, rows in enumerate(steps[epoch], start=done):
                    rate = plan.learning_rate * COSINE.share(step, num_steps)
                    _step(model, optimizer, batches, rows, rate)
                    report(step + 1, plan.epochs * batches.num_tokens * (step + 1) // num_steps)
                scores.append(_score(model, folder / CANDIDATE, val))
                if scores[-1] > max(scores[:-1], default=-np.inf):
                    shutil.rmtree(folder / BEST, ignore_errors=True)
                    shutil.copytree(folder / CANDIDATE, folder / BEST)
                save_checkpoint(folder / CHECKPOINT, model, optimizer, {"scores": json.dumps(scores)})
    return scores


class _Batches:
    """The first windows of n texts with their labels, as a model takes them."""

    def __init__(self, folder: Path, texts: LabelledTexts, classes: npt.NDArray[np.float64] | None) -> None:
        tokenizer, plan = plan_reading(str(folder), Reading())
        tokenized = tokenizer.encode(texts.texts)
        windows = split_windows(tokenized.offsets, plan.window, plan.window)
        self._windows = windows.where(np.diff(windows.documents, prepend=-1) > 0)
        self.num_tokens = int(self._windows.lengths.sum())
        self._tokens = tokenized.tokens
        self._template = plan.template
        labels = texts.labels if classes is None else np.searchsorted(classes, texts.labels)
        self._labels = labels.astype(np.float32 if classes is None else np.int64)

    def of(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]] | None:
        """Inputs of some texts; texts without tokens are left out, None where all are."""
        chosen = np.flatnonzero(np.isin(self._windows.documents, rows))
        if not len(chosen):
            return None
        inputs, mask = pad_windows(self._tokens, self._windows, chosen, self._template)
        labels = self._labels[self._windows.documents[chosen]]
        return {"input_ids": inputs, "attention_mask": mask, "labels": labels}


def _step(model: Any, optimizer: Any, batches: _Batches, rows: npt.NDArray[np.int64], rate: float) -> None:
    """One step of the optimiser over the mean loss of some texts."""
    import torch

    model.train()
    for part in _pieces(rows):
        if (inputs := batches.of(part)) is None:
            continue
        arrays = {name: torch.from_numpy(array).to(model.device) for name, array in inputs.items()}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type == "cuda"):
            loss = model(**arrays).loss * (len(part) / len(rows))
        loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
    if not torch.isfinite(norm):
        raise ValueError(f"gradients have a norm of {float(norm)}; try a smaller learning rate")
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad()


def _pieces(rows: npt.NDArray[np.int64]) -> Sequence[npt.NDArray[np.int64]]:
    return np.array_split(rows, -(-len(rows) // MICRO_BATCH))


def _score(model: Any, folder: Path, val: LabelledTexts) -> float:
    """Quality of the model as it stands, by what will be loaded."""
    model.save_pretrained(folder, safe_serialization=True)
    rater = SequenceClassifier.load(str(folder), Reading(dtype="float32"))
    return selection_score(rater, val)


def _with_head(encoder: str, classes: npt.NDArray[np.float64] | None, window: int, folder: Path) -> Any:
    """The encoder with a head for these classes, and the folder it is saved in, complete but for trained weights."""
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    check_files(encoder, "encoder")
    # What a class is worth is its name, which is how sequence classifications are read.
    names = ["value"] if classes is None else [str(worth) for worth in classes.tolist()]
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()  # that the head is new is no surprise
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            encoder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            problem_type="regression" if classes is None else "single_label_classification",
            id2label=dict(enumerate(names)),
            label2id={name: number for number, name in enumerate(names)},
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"{encoder}: {str(error).splitlines()[0]}") from error
    finally:
        logging.set_verbosity(verbosity)
    _check_loaded(encoder, model.base_model_prefix, found)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model.save_pretrained(folder, safe_serialization=True)
    shutil.copy(tokenizer_file(encoder), folder / "tokenizer.json")
    (folder / RATER_FILE).write_text(json.dumps({"kind": KIND}))
    (folder / TOKENIZER_CONFIG).write_text(json.dumps({"model_max_length": window}))
    return model


def _check_loaded(encoder: str, prefix: str, found: dict[str, Any]) -> None:
    """Refuse an encoder of which more than the head and the pooler before it was not there."""
    absent = [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]
    if missing := sorted(key for key in absent if key.startswith(f"{prefix}.") and ".pooler." not in key):
        raise ValueError(f"{encoder}: weights are missing or of another shape: {', '.join(missing[:3])}")
