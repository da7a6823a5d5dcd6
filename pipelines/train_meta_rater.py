"""Meta-rater (arXiv 2504.14194): which weights of quality signals teach best.

pool      = a seeded sample of the corpus with its signals; some documents of every source are held out
proxies   = for each of many random weights, a small model trained on the documents they put first
losses    = bits per byte of the target's held-out documents, or of the sources' where there is no target
weights   = what a surrogate of weights -> loss finds best; a second round of proxies searches around it
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.models.signal_weights import Signal, SignalWeights, fit_signal, to_numbers
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.weight_search import Found, draw_around, draw_weights, search_weights
from gristmill.pipelines import files
from gristmill.pipelines.derived_scores import read_columns
from gristmill.pipelines.evaluate import cut_passages
from gristmill.pipelines.model_files import PROXIES_FILE, digest
from gristmill.pipelines.proxies import Pool, Proxy, TrainProxies, read_losses
from gristmill.pipelines.recipe_models import MetaRaterModel
from gristmill.pipelines.sample_texts import Sample, is_sampled
from gristmill.pipelines.score_documents import read_batches
from gristmill.pipelines.signals import SignalColumn, find_signals
from gristmill.pipelines.train_language_models import bytes_per_token, load_tokenizer, usable
from gristmill.pipelines.training import Training
from gristmill.scorers.base import RecipeError
from gristmill.scorers.doc_ids import random_keys
from gristmill.scorers.schema import PROXIES

Numbers = npt.NDArray[np.float64]

FOLDER = f"models/{files.TEMPORARY_PREFIX}proxies"
TARGET = "target"
"""The domain of the target's held-out documents; of sources, their names."""
HELD_OUT = 0.1
"""Share of the pool by which proxies are judged."""
POOL_SEED, HELD_OUT_SEED = 1 << 36, (1 << 36) + 1
SECOND_ROUND = 0.25
"""Share of the proxies that search around the first round's answer."""
WEAK = 0.3
"""Rank correlation of predicted and measured losses below which the weights say little."""


def make_meta_rater(training: Training, folder: Path, made: Path) -> dict[str, Any]:
    """Train proxies under random weights, and find the best weights."""
    spec = training.models.meta_rater
    tokenizer = usable("models.tokenizer", lambda: load_tokenizer(training.path("tokenizer")))
    columns = find_signals(training.workspace, spec)
    pool, signals = gather_pool(training, spec, columns, tokenizer)
    identity = digest(spec.model_dump(mode="json"), [asdict(signal) for signal in signals], len(pool.stream))
    folder_of_proxies = f"{FOLDER}/{identity}"
    pool.save(training.workspace.path(folder_of_proxies, "pool"))
    first = round(spec.proxies * (1 - SECOND_ROUND)) if spec.rounds == 2 else spec.proxies
    vectors = draw_weights(first, len(signals), spec.seed)
    losses = _train(training, folder_of_proxies, spec, vectors, 0)
    found = _search(spec, vectors, losses)
    if spec.rounds == 2:
        around = draw_around(found.weights, spec.proxies - first, spec.seed + 1)
        losses += _train(training, folder_of_proxies, spec, around, first)
        vectors = np.concatenate([vectors, around])
        found = _search(spec, vectors, losses)
    weighted = SignalWeights(
        tuple(replace(signal, weight=float(w)) for signal, w in zip(signals, found.weights, strict=True))
    )
    weighted.save(made)
    write_proxies(made / PROXIES_FILE, vectors, losses, first)
    files.delete_folder(training.workspace.path(FOLDER))
    return {
        "signals": [[signal.name, signal.weight, signal.higher_is_better] for signal in weighted.signals],
        "surrogate": found.surrogate,
        "surrogate_errors": found.errors,
        "spearman": found.spearman,
        "predicted_loss": found.loss,
        "best_proxy_loss": min(objective(loss) for loss in losses),
        "num_proxies": len(losses),
        "warnings": warnings_of(found, losses),
    }


def gather_pool(
    training: Training, spec: MetaRaterModel, columns: Sequence[SignalColumn], tokenizer: Tokenizer
) -> tuple[Pool, list[Signal]]:
    """A sample of the corpus from which every proxy can take as many tokens as it is trained on.

    Raises:
        RecipeError: If the corpus holds too little text.
    """
    num_bytes = spec.tokens * bytes_per_token(training, tokenizer) / spec.keep / (1 - HELD_OUT)
    sample = training.sample(num_bytes, POOL_SEED + spec.seed)
    tokens, lengths, keys, values = [], [], [], []
    held_out: dict[str, list[str]] = {}
    for batch, signals in read_sample(training, sample, columns):
        is_held_out = random_keys(pa.chunked_array([batch["doc_id"]]), HELD_OUT_SEED + spec.seed) < HELD_OUT
        for source, text in zip(
            batch["source"].filter(pa.array(is_held_out)).to_pylist(),
            batch["text"].filter(pa.array(is_held_out)).to_pylist(),
            strict=True,
        ):
            held_out.setdefault(source, []).append(text)
        kept = batch.filter(pa.array(~is_held_out))
        texts = tokenizer.encode(kept["text"])
        tokens.append(np.insert(texts.tokens, texts.offsets[1:], np.uint32(tokenizer.end_of_text)))
        lengths.append(np.diff(texts.offsets) + 1)
        keys.append(random_keys(pa.chunked_array([kept["doc_id"]]), POOL_SEED + spec.seed))
        values.append(signals[~is_held_out])
    matrix = np.concatenate(values)
    scales = usable("models.meta_rater.signals", lambda: _fit_signals(columns, matrix, spec))
    scaled = np.stack([scale.scale(matrix[:, number]) for number, scale in enumerate(scales)], axis=1)
    if training.recipe.target:
        held_out = {TARGET: [t for b in training.held_out_documents() for t in b["text"].to_pylist()]}
    passages = {name: cut_passages(texts) for name, texts in sorted(held_out.items())}
    passages = {name: texts for name, texts in passages.items() if len(texts)}
    stream, offsets = np.concatenate(tokens), np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    if not passages or len(offsets) < 2:
        raise RecipeError(
            "models.meta_rater: the corpus holds too little text to train proxies and judge them"
        )
    return Pool(stream, offsets, scaled, np.concatenate(keys), passages), scales


def _fit_signals(columns: Sequence[SignalColumn], matrix: Numbers, spec: MetaRaterModel) -> list[Signal]:
    return [
        fit_signal(
            column.name,
            values,
            higher_is_better=column.higher_is_better,
            normalisation=spec.normalisation,
        )
        for column, values in zip(columns, matrix.T, strict=True)
    ]


def read_sample(
    training: Training, sample: Sample, columns: Sequence[SignalColumn]
) -> Iterator[tuple[pa.RecordBatch, Numbers]]:
    """The sampled documents batch by batch, each with its signals, NaN where missing, float64[n, d]."""
    workspace = training.workspace
    for shard in training.shards:
        versions = {column.name: column.version for column in columns}
        table = read_columns(workspace, shard.name, versions)
        signals = [to_numbers(table[column.name]) for column in columns]
        start = 0
        for batch in read_batches(workspace, shard.name):
            wanted = is_sampled(batch, sample)
            rows = np.flatnonzero(wanted.to_numpy(zero_copy_only=False)) + start
            start += len(batch)
            if len(rows):
                yield batch.filter(wanted), np.stack([signal[rows] for signal in signals], axis=1)


def objective(losses: dict[str, float]) -> float:
    """What the weights shall make small: the target's loss, or the mean over the sources' where there is none."""
    return losses[TARGET] if TARGET in losses else float(np.mean(list(losses.values())))


def warnings_of(found: Found, losses: Sequence[dict[str, float]]) -> list[str]:
    """What makes the answer doubtful."""
    if found.spearman >= WEAK:
        return []
    return [
        f"the losses of {len(losses)} proxies hardly depend on the weights as far as {found.surrogate} can tell (rank "
        f"correlation {found.spearman:.2f} on proxies it did not see); train more proxies, or on more tokens"
    ]


def write_proxies(path: Path, vectors: Numbers, losses: Sequence[dict[str, float]], num_first: int) -> None:
    """Leave weights and losses of every proxy beside the model, one row a proxy."""
    rows = [
        {
            "proxy": number,
            "round": 1 if number < num_first else 2,
            "weights": weights,
            "loss": objective(of_proxy),
            "domains": list(of_proxy),
            "losses": list(of_proxy.values()),
        }
        for number, (weights, of_proxy) in enumerate(zip(vectors.tolist(), losses, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows, PROXIES), path)


def _train(
    training: Training, folder: str, spec: MetaRaterModel, vectors: Numbers, first: int
) -> list[dict[str, float]]:
    """The losses of some proxies, those trained before a kill included."""
    proxies = [Proxy(first + number, tuple(weights)) for number, weights in enumerate(vectors.tolist())]
    known = read_losses(training.workspace, folder, proxies)
    missing = [proxy for proxy in proxies if proxy.number not in known]
    if missing:
        transform = TrainProxies(training.workspace, folder, spec, training.path("tokenizer"))
        training.run([missing], "TrainProxies" >> transform)
        known |= read_losses(training.workspace, folder, missing)
    return [known[proxy.number] for proxy in proxies]


def _search(spec: MetaRaterModel, vectors: Numbers, losses: Sequence[dict[str, float]]) -> Found:
    values = np.array([objective(of_proxy) for of_proxy in losses])
    return usable(
        "models.meta_rater",
        lambda: search_weights(vectors, values, surrogate=spec.surrogate, seed=spec.seed),
    )
