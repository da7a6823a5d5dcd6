"""Speed of CoLoR-Filter scores on one core, beside a padded loop over transformers, and how far apart the losses are.

    python tests/bench/bench_color_filter.py [--documents N] [--vocabularies 4096 50000] [--size 1m] [--corpus FOLDER]

Both score the same documents under the same two models, float32 and random weights, in seconds of CPU on one thread,
the faster of `--runs` runs in turn. Ours is the whole path: Arrow shard on disk -> scores in Parquet. The peer's
documents are in memory; it tokenises them, cuts the same windows, and feeds them to the models in corpus order through
a DataLoader: 32 windows a batch, padded with an attention mask, whole logits, cross-entropy in float32.
"""

import argparse
import gzip
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader
from workspaces import ingested

from gristmill.models.language_model import SIZES, LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.score_documents import score_shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers import language_models
from gristmill.scorers.color_filter import ColorFilter

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
BATCH_WINDOWS = 32
IGNORED = -100
Losses = npt.NDArray[np.float64]


def read_texts(folder: Path) -> Iterator[str]:
    """The texts of a folder of gzipped JSON lines."""
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from (json.loads(line)["text"] for line in file)


def score_with_ours(workspace: Workspace, scorer: ColorFilter) -> Losses:
    """Losses of each document under both models, from the Parquet files of a whole scoring, float64[2, n]."""
    rows = []
    for shard in read_corpus(workspace):
        score_shard(workspace, shard, [scorer])
        table = pq.read_table(workspace.scores(scorer.name, scorer.fingerprint(), shard.name))
        num_tokens = table["num_tokens"].to_numpy()
        rows.append([table[name].to_numpy() * num_tokens for name in ("nll_prior", "nll_conditional")])
    return np.concatenate(rows, axis=1)


def score_with_peer(texts: list[str], models: list[LanguageModel], context: int) -> Losses:
    """The same by the padded loop, float64[2, n]."""
    end = models[0].tokenizer.end_of_text
    encodings = models[0].tokenizer._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    windows = [
        (row, ids[start : start + context])
        for row, ids in enumerate(encoding.ids for encoding in encodings)
        for start in range(0, len(ids), context)
    ]

    def collate(batch: list[tuple[int, list[int]]]) -> tuple[torch.Tensor, ...]:
        longest = max(len(ids) for _, ids in batch)
        inputs = torch.full((len(batch), longest), end)
        targets, mask = torch.full_like(inputs, IGNORED), torch.zeros_like(inputs)
        for place, (_, ids) in enumerate(batch):
            targets[place, : len(ids)] = torch.tensor(ids)
            inputs[place, 1 : len(ids)] = targets[place, : len(ids) - 1]
            mask[place, : len(ids)] = 1
        return inputs, targets, mask, torch.tensor([row for row, _ in batch])

    losses = torch.zeros(len(models), len(texts), dtype=torch.float64)
    with torch.inference_mode():
        for inputs, targets, mask, rows in DataLoader(windows, BATCH_WINDOWS, collate_fn=collate):
            for number, model in enumerate(models):
                logits = model.model(input_ids=inputs, attention_mask=mask, use_cache=False).logits.float()
                found = torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED, reduction="none"
                )
                losses[number].index_add_(0, rows, found.view_as(targets).sum(1).double())
    return losses.numpy()


class Timed:
    """Seconds of CPU of calls to a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any) -> Any:
        """Call it."""
        started = time.process_time()
        result = self.function(*arguments)
        self.seconds += time.process_time() - started
        return result


def compare(folder: Path, texts: list[str], vocab_size: int, arguments: argparse.Namespace) -> None:
    """Print the numbers for one vocabulary."""
    tokenizer = Tokenizer.train(itertools.islice(read_texts(arguments.corpus), 20_000), vocab_size)
    paths = [str(folder / name) for name in ("prior", "conditional")]
    for seed, path in enumerate(paths):
        LanguageModel.make(SIZES[arguments.size], tokenizer, seed).save(Path(path))
    scorer = ColorFilter(prior=paths[0], conditional=paths[1], dtype="float32")
    scorer.setup()
    models = [LanguageModel.load(path) for path in paths]
    workspace = ingested(folder, texts)
    forward = Timed(LanguageModel.losses)
    LanguageModel.losses = lambda *given: forward(*given)  # type: ignore[method-assign]
    ours, peers, shares = [], [], []
    for _ in range(arguments.runs):
        forward.seconds, started = 0.0, time.process_time()
        found = score_with_ours(workspace, scorer)
        ours.append(time.process_time() - started)
        shares.append(1 - forward.seconds / ours[-1])
        started = time.process_time()
        expected = score_with_peer(texts, models, models[0].context)
        peers.append(time.process_time() - started)
    LanguageModel.losses = forward.function  # type: ignore[method-assign]
    num_tokens = tokenizer.count(pa.array(texts, pa.large_string())).sum()
    error = np.max(np.abs(found - expected) / np.maximum(expected, 1e-9))
    print(
        f"vocabulary {tokenizer.vocab_size:6,}, {num_tokens:9,} tokens: ours {num_tokens / min(ours):8,.0f} tokens/s, "
        f"peer {num_tokens / min(peers):8,.0f} tokens/s, ratio {min(peers) / min(ours):.2f}x; reading, tokenising and "
        f"writing {100 * min(shares):.1f} % of the time; largest relative difference of a loss {error:.1e}",
        flush=True,
    )


def main() -> None:
    """Print a line a vocabulary."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=600)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 50_000])
    parser.add_argument("--size", choices=SIZES, default="1m")
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with *.jsonl.gz")
    arguments = parser.parse_args()
    if not arguments.corpus.exists():
        print(f"{arguments.corpus} is not there; name another folder with --corpus")
        return
    torch.set_num_threads(1)
    texts = list(itertools.islice(read_texts(arguments.corpus), arguments.documents))
    print(f"{len(texts):,} documents, two models of size {arguments.size}, one thread")
    for vocab_size in arguments.vocabularies:
        language_models.language_model.shared_model.cache_clear()
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), texts, vocab_size, arguments)


if __name__ == "__main__":
    main()
