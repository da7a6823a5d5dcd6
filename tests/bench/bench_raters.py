"""Speed of a Hugging Face rater on one core, beside a text-classification pipeline, and how far apart logits are.

    python tests/bench/bench_raters.py [--documents N] [--contexts 512 2048] [--batch-size 32] [--corpus FOLDER]

Both rate the same documents by the same models, float32 and random weights, a BERT and a ModernBERT of about 5 million
parameters, in seconds of CPU on one thread, the faster of `--runs` runs in turn. Both read the first window of each
document. Ours is the whole path: Arrow shard on disk -> ratings in Parquet. The peer is `pipeline` of transformers
with truncation and batches, otherwise as it is: documents in memory, in corpus order, padded to the longest of a batch.
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
import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
    TextClassificationPipeline,
)
from transformers.utils import logging
from workspaces import ingested

from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.score_documents import score_shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.raters import AnyRater

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
VOCAB_SIZE = 16_000
SIZES = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"intermediate_size": 768},
    "modernbert": {"intermediate_size": 512, "local_attention": 128},
}
Values = npt.NDArray[np.float64]


def read_texts(folder: Path) -> Iterator[str]:
    """The texts of a folder of gzipped JSON lines, a document of each file in turn."""
    files = [gzip.open(path, "rt", encoding="utf-8") for path in sorted(folder.glob("*.jsonl.gz"))]
    for lines in itertools.zip_longest(*files):
        yield from (json.loads(line)["text"] for line in lines if line)


def make_tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE with special tokens around each text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return tokenizer


def make_rater(folder: Path, family: str, context: int, tokenizer: Tokenizer) -> Path:
    """A regression with random weights, so that values are logits."""
    config = AutoConfig.for_model(
        family,
        **SIZES,
        **FAMILIES[family],
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=context,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        num_labels=1,
        initializer_range=0.1,
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **names).save_pretrained(
        folder
    )
    return folder


def rate_with_ours(workspace: Workspace, scorer: AnyRater) -> Values:
    """Values of all documents, from the Parquet files of a whole scoring."""
    parts = []
    for shard in read_corpus(workspace):
        score_shard(workspace, shard, [scorer])
        table = pq.read_table(workspace.scores(scorer.name, scorer.fingerprint(), shard.name))
        parts.append(table["rater"].to_numpy())
    return np.concatenate(parts).astype(np.float64)


def rate_with_peer(peer: TextClassificationPipeline, texts: list[str], batch_size: int) -> Values:
    """Values of all documents by the pipeline."""
    found = peer(texts, batch_size=batch_size, truncation=True, function_to_apply="none")
    return np.array([row["score"] for row in found])


class Timed:
    """Seconds of CPU of calls to a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.seconds = 0.0

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call it."""
        started = time.process_time()
        result = self.function(*arguments, **named)
        self.seconds += time.process_time() - started
        return result


def compare(
    workspace: Workspace, texts: list[str], folder: Path, name: str, arguments: argparse.Namespace
) -> None:
    """Print the numbers for one model."""
    scorer = AnyRater(model=str(folder), long_texts="truncate", dtype="float32")
    scorer.setup()
    model: Any = scorer._rater
    forward = Timed(model._model.forward)
    model._model.forward = forward
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    peer = TextClassificationPipeline(
        model=AutoModelForSequenceClassification.from_pretrained(folder), tokenizer=tokenizer, device="cpu"
    )
    num_tokens = sum(map(len, tokenizer(texts, truncation=True)["input_ids"]))
    ours, peers, shares = [], [], []
    for _ in range(arguments.runs):
        forward.seconds, started = 0.0, time.process_time()
        found = rate_with_ours(workspace, scorer)
        ours.append(time.process_time() - started)
        shares.append(1 - forward.seconds / ours[-1])
        started = time.process_time()
        expected = rate_with_peer(peer, texts, arguments.batch_size)
        peers.append(time.process_time() - started)
    print(
        f"{name:16}, {num_tokens:9,} tokens: ours {num_tokens / min(ours):7,.0f} tokens/s, "
        f"pipeline {num_tokens / min(peers):7,.0f} tokens/s, ratio {min(peers) / min(ours):.2f}x; "
        f"outside forward passes {100 * min(shares):.1f} % of the time; "
        f"logits spread by {expected.std():.2f} and differ by {np.abs(found - expected).max():.1e} at most",
        flush=True,
    )


def main() -> None:
    """Print a line a model."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=256)
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with *.jsonl.gz")
    arguments = parser.parse_args()
    if not arguments.corpus.exists():
        print(f"{arguments.corpus} is not there; name another folder with --corpus")
        return
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    texts = list(itertools.islice(read_texts(arguments.corpus), arguments.documents))
    print(f"{len(texts):,} documents, batches of {arguments.batch_size} for the pipeline, one thread")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = make_tokenizer(texts)
        workspace = ingested(folder, texts)
        for family, context in itertools.product(FAMILIES, arguments.contexts):
            rater = make_rater(folder / f"{family}-{context}", family, context, tokenizer)
            compare(workspace, texts, rater, rater.name, arguments)


if __name__ == "__main__":
    main()
