"""The models of CoLoR-Filter (arXiv 2406.10670): tokenizer, prior and conditional.

tokenizer   = byte-level BPE on a sample of the corpus
prior       = a language model trained on a sample of the corpus
conditional = the prior fine-tuned on the target
"""

import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.classifier_quality import area_under_roc
from gristmill.models.language_model import SAMPLE, SIZES, LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import TrainingPlan, join_documents
from gristmill.pipelines.model_files import LOG_FILE
from gristmill.pipelines.recipe_models import Pretraining, Size
from gristmill.pipelines.sample_texts import join_texts
from gristmill.pipelines.training import Training
from gristmill.scorers.base import RecipeError, loading
from gristmill.scorers.schema import TRAINING

Loaded = TypeVar("Loaded")

PROBED_BYTES = 1 << 20
"""Text on which bytes a token are measured."""
MAX_COMPARED = 200
"""Held-out documents of the target, and about as many of the pool, that are compared by their beginnings."""
COMPARED_CHARS = 1000
LOOK_ALIKE = 0.6
"""Area under the ROC curve of held-out target against pool below which there is little to choose by."""


def make_tokenizer(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train a tokenizer on a sample of the corpus."""
    spec = training.models.tokenizer
    sample = training.sample(spec.max_bytes, seed=0)
    texts = (text for array in training.texts(sample) for text in array.to_pylist())
    tokenizer = Tokenizer.train(texts, spec.vocab_size)
    tokenizer.save(made)
    return {"vocab_size": tokenizer.vocab_size, "sample": asdict(sample)}


def make_prior(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train a language model on a sample of the corpus of about so many tokens."""
    spec = training.models.prior
    facts = pretrain("prior", training, spec, spec.size, spec.seed, folder, made)
    (made / SAMPLE).write_text(json.dumps(facts["sample"]))
    return facts


def pretrain(
    title: str, training: Training, spec: Pretraining, size: Size, seed: int, folder: Path, made: Path
) -> dict[str, Any]:
    """Train a language model from seeded random weights on a seeded sample of the corpus.

    Args:
        title: What it is called.
        training: Where corpus and tokenizer are.
        spec: How it is trained.
        size: Its name in `SIZES`.
        seed: Of weights, sample and order.
        folder: For what a training that goes on needs.
        made: For the model.

    Raises:
        RecipeError: If there is nothing to train on.
    """
    tokenizer = usable("models.tokenizer", lambda: load_tokenizer(training.path("tokenizer")))
    sample = training.sample(spec.tokens * bytes_per_token(training, tokenizer), seed)
    stream = write_stream(folder / "stream", training.texts(sample), tokenizer)
    if len(stream) < 2:
        raise RecipeError(f"models.{title}: the corpus holds no text to train on")
    architecture = replace(SIZES[size], context=spec.context)
    model = LanguageModel.make(architecture, tokenizer, seed)
    plan = TrainingPlan(batch_tokens=spec.batch_tokens, learning_rate=spec.learning_rate, seed=seed)
    return _train(title, training, model, stream, plan, folder, made) | {"sample": asdict(sample)}


def make_conditional(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Fine-tune the prior on the target, and see whether the two then tell target and pool apart."""
    spec = training.models.conditional
    prior = usable("models.prior", lambda: LanguageModel.load(training.path("prior")))
    trained_on = (batch["text"] for batch in training.target_documents())
    stream = write_stream(folder / "stream", trained_on, prior.tokenizer)
    if len(stream) < 2:
        raise RecipeError("target: it holds no text; expected documents to fine-tune the prior on")
    model = LanguageModel(deepcopy(prior.model), prior.tokenizer)
    plan = TrainingPlan(
        batch_tokens=spec.batch_tokens, learning_rate=spec.learning_rate, seed=spec.seed, epochs=spec.epochs
    )
    facts = _train("conditional", training, model, stream, plan, folder, made)
    held_out = join_texts(batch["text"] for batch in training.held_out_documents())
    auc = _separation(training, prior, model, held_out[:MAX_COMPARED])
    warnings = []
    if auc is not None and auc < LOOK_ALIKE:
        warnings.append(
            f"target and pool look alike: of held-out target documents and others, the two models tell them apart "
            f"with an area under the ROC curve of {auc:.2f}, 0.5 being chance; CoLoR-Filter has little to choose by"
        )
    return facts | {"target_against_pool_auc": auc, "warnings": warnings}


def bytes_per_token(training: Training, tokenizer: Tokenizer) -> float:
    """Bytes of text that a token stands for, by a sample of the corpus."""
    probe = join_texts(training.texts(training.sample(PROBED_BYTES, seed=0)))
    num_bytes = pc.sum(pc.binary_length(probe)).as_py() or 0
    return float(num_bytes / max(int(tokenizer.count(probe).sum()), 1))


def write_stream(
    path: Path, arrays: Iterable[pa.LargeStringArray], tokenizer: Tokenizer
) -> npt.NDArray[np.uint32]:
    """The tokens of texts as one stream on disk, an end-of-text token before each; made once.

    Args:
        path: Where it lies; a training that goes on takes the one it began with.
        arrays: The texts, an array a batch.
        tokenizer: Makes the tokens.

    Returns:
        The stream, memory-mapped, uint32[t].
    """
    if not path.is_file():
        aside = path.with_suffix(".tmp")
        with aside.open("wb") as file:
            for texts in arrays:
                join_documents(tokenizer.encode(texts), tokenizer.end_of_text).tofile(file)
        aside.rename(path)
    if path.stat().st_size == 0:
        return np.empty(0, np.uint32)
    return np.memmap(path, np.uint32, "r")


def _train(
    name: str,
    training: Training,
    model: LanguageModel,
    stream: npt.NDArray[np.uint32],
    plan: TrainingPlan,
    folder: Path,
    made: Path,
) -> dict[str, Any]:
    """Train, save the model with its log, and say what was done."""
    log = usable(f"models.{name}", lambda: training.fit(name, model, stream, plan, folder))
    last = log[-1]
    model.save(made)
    rows = [{"model": name, **asdict(row)} for row in log]
    pq.write_table(pa.Table.from_pylist(rows, TRAINING), made / LOG_FILE)
    return {"num_steps": last.step, "num_tokens": last.num_tokens, "loss": last.loss}


def _separation(
    training: Training, prior: LanguageModel, conditional: LanguageModel, held_out: pa.LargeStringArray
) -> float | None:
    """How well the two models tell held-out target documents from others, None where there are none of either."""
    num_documents = sum(shard.num_rows for shard in training.shards)
    num_bytes = sum(shard.num_bytes for shard in training.shards)
    sample = training.sample(MAX_COMPARED * num_bytes / max(num_documents, 1), seed=1)
    pool = join_texts(training.texts(sample))
    if len(pool) == 0 or len(held_out) == 0:
        return None
    return area_under_roc(*(_gain(prior, conditional, texts) for texts in (held_out, pool)))


def _gain(
    prior: LanguageModel, conditional: LanguageModel, texts: pa.LargeStringArray
) -> npt.NDArray[np.float64]:
    """CoLoR scores of the beginnings of n texts, float64[n]."""
    tokens = prior.tokenizer.encode(pc.utf8_slice_codeunits(texts, 0, COMPARED_CHARS))
    before, after = (model.losses(tokens, model.context, model.context) for model in (prior, conditional))
    return (before.nll - after.nll) / np.maximum(before.num_tokens, 1)


def load_tokenizer(path: str) -> Tokenizer:
    """A tokenizer that can end documents."""
    tokenizer = Tokenizer.load(path)
    _ = tokenizer.end_of_text
    return tokenizer


def usable(place: str, load: Callable[[], Loaded]) -> Loaded:
    """What a path of the recipe holds.

    Raises:
        RecipeError: In one line, if it cannot be used.
    """
    with loading(place, "a language model", RecipeError):
        return load()
