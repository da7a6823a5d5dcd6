"""Proxies: small language models, each trained on the documents that one vector of weights puts first (Meta-rater).

The pool that they choose from is a seeded sample of the corpus, tokenised once. Each proxy leaves one file, so that a
search that was killed goes on. Workers share proxies one by one, or on GPUs in groups that are trained side by side.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.language_model import SIZES, Architecture, LanguageModel
from gristmill.models.schedule import COSINE
from gristmill.models.stacked_training import stack_size, train_stacked
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import TrainingPlan, train
from gristmill.pipelines import files
from gristmill.pipelines.evaluate import bits_per_byte
from gristmill.pipelines.model_files import local_copy
from gristmill.pipelines.recipe_models import MetaRaterModel
from gristmill.pipelines.score_documents import ACCELERATOR_HINT
from gristmill.pipelines.train_language_models import usable
from gristmill.pipelines.workspace import Workspace

Numbers = npt.NDArray[np.float64]

TOKENS, DOCUMENTS, PASSAGES = "tokens.bin", "documents.npz", "passages.json"


@dataclass(frozen=True)
class Pool:
    """n documents that proxies choose from.

    Args:
        stream: Their tokens end to end, each document with its end of text, uint32[t].
        offsets: Document i has the tokens from offsets[i] to offsets[i + 1], int64[n + 1].
        signals: Scaled signals, float64[n, d].
        keys: Random numbers that order equal ones, float64[n].
        passages: Domain -> held-out texts by which proxies are judged.
    """

    stream: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]
    signals: Numbers
    keys: Numbers
    passages: Mapping[str, pa.LargeStringArray]

    def best(self, weights: Numbers, share: float) -> npt.NDArray[np.int64]:
        """The documents with the highest weighted sums, in the order of their keys.

        Args:
            weights: float64[d].
            share: Of the documents that are kept, at least one.
        """
        num_kept = max(round(share * len(self.keys)), 1)
        best = np.lexsort((self.keys, -(self.signals @ weights)))[:num_kept]
        return best[np.argsort(self.keys[best])]

    def join(self, documents: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
        """The tokens of some documents as one stream."""
        pieces = [self.stream[self.offsets[row] : self.offsets[row + 1]] for row in documents.tolist()]
        return np.concatenate(pieces) if pieces else self.stream[:0]

    def save(self, folder: str) -> None:
        """Leave it for workers."""
        with files.committed(files.join(folder, TOKENS)) as file:
            file.write(np.ascontiguousarray(self.stream).data)
        with files.committed(files.join(folder, DOCUMENTS)) as file:
            np.savez(file, offsets=self.offsets, signals=self.signals, keys=self.keys)
        content = {name: texts.to_pylist() for name, texts in self.passages.items()}
        files.commit_bytes(files.join(folder, PASSAGES), json.dumps(content).encode())

    @classmethod
    def load(cls, folder: str) -> "Pool":
        """Read what `save` left, the tokens memory-mapped."""
        local = Path(local_copy(folder))
        with np.load(local / DOCUMENTS, allow_pickle=False) as arrays:
            offsets, signals, keys = (arrays[name] for name in ("offsets", "signals", "keys"))
        passages = {
            name: pa.array(texts, pa.large_string())
            for name, texts in json.loads((local / PASSAGES).read_text()).items()
        }
        return cls(np.memmap(local / TOKENS, np.uint32, "r"), offsets, signals, keys, passages)


@dataclass(frozen=True)
class Proxy:
    """One vector of weights.

    Args:
        number: Of the proxy, from 0, over all rounds.
        weights: One a signal.
    """

    number: int
    weights: tuple[float, ...]


class TrainProxies(beam.PTransform):
    """Lists of proxies -> their numbers; leaves the losses of each as one file.

    A worker holds the signals of the pool, 8 bytes a document and signal, and the small models of a group. Groups are
    made by a worker too: the launcher may have no GPU, or be the only one that has.

    Args:
        workspace: Where the pool and the losses lie.
        folder: In which folder.
        spec: How proxies are trained.
        tokenizer: Path of the tokenizer.
    """

    def __init__(self, workspace: Workspace, folder: str, spec: MetaRaterModel, tokenizer: str) -> None:
        super().__init__()
        self.worker = _Trainer(workspace, folder, spec, tokenizer)

    def expand(self, proxies: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        group = beam.FlatMap(group_proxies, self.worker.spec, self.worker.tokenizer)
        return (
            proxies
            | "GroupProxies" >> group.with_resource_hints(accelerator=ACCELERATOR_HINT)
            | beam.Reshuffle()
            | "TrainGroups" >> beam.ParDo(self.worker).with_resource_hints(accelerator=ACCELERATOR_HINT)
        )


def group_proxies(
    proxies: Sequence[Proxy], spec: MetaRaterModel, tokenizer: str
) -> Iterator[Sequence[Proxy]]:
    """Cut proxies into groups that this machine trains side by side."""
    vocab_size = Tokenizer.load(local_copy(tokenizer)).vocab_size
    size = stack_size(architecture_of(spec), vocab_size, spec.batch_tokens)
    for start in range(0, len(proxies), size):
        yield proxies[start : start + size]


class _Trainer(beam.DoFn):
    """Loads the pool once in a worker."""

    def __init__(self, workspace: Workspace, folder: str, spec: MetaRaterModel, tokenizer: str) -> None:
        super().__init__()
        self.workspace, self.folder, self.spec, self.tokenizer = workspace, folder, spec, tokenizer

    def setup(self) -> None:
        """Load pool and tokenizer."""
        self.pool = Pool.load(self.workspace.path(self.folder, "pool"))
        self.ready = Tokenizer.load(local_copy(self.tokenizer))

    def process(self, proxies: Sequence[Proxy]) -> Iterator[int]:
        """Train and judge a group."""
        judged = train_proxies(self.pool, proxies, self.spec, self.ready)
        for proxy, losses in zip(proxies, judged, strict=True):
            content = asdict(proxy) | {"losses": losses}
            self.workspace.commit_json(content, self.folder, file_of(proxy.number))
            yield proxy.number


def train_proxies(
    pool: Pool, proxies: Sequence[Proxy], spec: MetaRaterModel, tokenizer: Tokenizer
) -> list[dict[str, float]]:
    """Train a model on the documents that each one's weights put first, side by side, and judge it by every domain.

    Models whose documents fill no sequence are trained one by one.

    Returns:
        For each, domain -> bits per byte of its held-out texts.

    Raises:
        RecipeError: If there is nothing to train on, or a loss is no longer finite.
    """
    streams = [pool.join(pool.best(np.array(proxy.weights), spec.keep)) for proxy in proxies]
    names = [f"proxy {proxy.number}" for proxy in proxies]
    models = [LanguageModel.make(architecture_of(spec), tokenizer, spec.seed) for _ in proxies]
    plan = TrainingPlan(
        batch_tokens=spec.batch_tokens,
        learning_rate=spec.learning_rate,
        schedule=COSINE,
        seed=spec.seed,
        num_steps=max(spec.tokens // spec.batch_tokens, 1),
    )
    if len(proxies) > 1 and min(map(len, streams)) > spec.context:
        usable("models.meta_rater", lambda: train_stacked(models, streams, plan, names))
    else:
        for name, model, stream in zip(names, models, streams, strict=True):
            usable(f"models.meta_rater: {name}", partial(_train_alone, model, stream, plan))
    return [{name: bits_per_byte(model, texts) for name, texts in pool.passages.items()} for model in models]


def architecture_of(spec: MetaRaterModel) -> Architecture:
    """What proxies are."""
    return replace(SIZES[spec.size], context=spec.context)


def _train_alone(model: LanguageModel, stream: npt.NDArray[np.uint32], plan: TrainingPlan) -> None:
    with TemporaryDirectory() as folder:
        train(model, stream, plan, Path(folder), lambda row, num_steps: None)


def file_of(number: int) -> str:
    """The file name of the losses of a proxy."""
    return f"proxy-{number:05d}.json"


def read_losses(workspace: Workspace, folder: str, proxies: Sequence[Proxy]) -> dict[int, dict[str, float]]:
    """The losses of the proxies that are trained under these weights, by number."""

    def read(proxy: Proxy) -> dict[str, Any] | None:
        found: dict[str, Any] | None = workspace.read_json(folder, file_of(proxy.number))
        return found

    pairs = zip(proxies, files.in_parallel(read, proxies), strict=True)
    return {
        proxy.number: found["losses"]
        for proxy, found in pairs
        if found is not None and tuple(found["weights"]) == proxy.weights
    }
