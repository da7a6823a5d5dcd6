"""Proxies: small language models, each trained on the documents that one vector of weights puts first (Meta-rater).

The pool that they choose from is a seeded sample of the corpus, tokenised once. Each proxy is one element of a Beam
pipeline and leaves one file, so that a search that was killed goes on, and several workers share it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.language_model import SIZES, LanguageModel
from gristmill.models.schedule import COSINE
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import TrainingPlan, train
from gristmill.pipelines import files
from gristmill.pipelines.evaluate import bits_per_byte
from gristmill.pipelines.model_files import local_copy
from gristmill.pipelines.recipe_models import MetaRaterModel
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
    """Proxies -> nothing; leaves the losses of each as one file.

    A worker holds the signals of the pool, 8 bytes a document and signal, and one small model.

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
        return proxies | "TrainProxy" >> beam.ParDo(self.worker)


class _Trainer(beam.DoFn):
    """Loads the pool once in a worker."""

    def __init__(self, workspace: Workspace, folder: str, spec: MetaRaterModel, tokenizer: str) -> None:
        super().__init__()
        self.workspace, self.folder, self.spec, self.tokenizer = workspace, folder, spec, tokenizer

    def setup(self) -> None:
        """Load pool and tokenizer."""
        self.pool = Pool.load(self.workspace.path(self.folder, "pool"))
        self.ready = Tokenizer.load(local_copy(self.tokenizer))

    def process(self, proxy: Proxy) -> Iterator[int]:
        """Train and judge one."""
        losses = train_proxy(self.pool, proxy, self.spec, self.ready)
        self.workspace.commit_json(asdict(proxy) | {"losses": losses}, self.folder, file_of(proxy.number))
        yield proxy.number


def train_proxy(pool: Pool, proxy: Proxy, spec: MetaRaterModel, tokenizer: Tokenizer) -> dict[str, float]:
    """Train a model on the documents that the weights put first, and judge it by every domain.

    Returns:
        Domain -> bits per byte of its held-out texts.
    """
    stream = pool.join(pool.best(np.array(proxy.weights), spec.keep))
    model = LanguageModel.make(replace(SIZES[spec.size], context=spec.context), tokenizer, spec.seed)
    plan = TrainingPlan(
        batch_tokens=spec.batch_tokens,
        learning_rate=spec.learning_rate,
        schedule=COSINE,
        seed=spec.seed,
        num_steps=max(spec.tokens // spec.batch_tokens, 1),
    )
    with TemporaryDirectory() as folder:
        train(model, stream, plan, Path(folder), lambda row, num_steps: None)
    return {name: bits_per_byte(model, texts) for name, texts in pool.passages.items()}


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
