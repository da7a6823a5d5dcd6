"""Speed of fastText scores beside fastText's own binding and datatrove's filter, and how far probabilities differ.

    python tests/bench/bench_text_classifier.py [--documents N] [--peer-python PYTHON] [--corpus FOLDER]

A classifier of books against other texts is trained on half of the files; both sides score the documents of the other
half with it, in seconds of CPU, the best of `--runs` runs in turn. Ours is the whole path: Arrow shard on disk ->
probabilities in Parquet. The binding gets lines that lie in a list, all in one call, and is asked for one label; the
filter gets documents in memory. Without --peer-python a venv for datatrove is made in the user's cache folder.
"""

import argparse
import gzip
import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from peers import peer_python
from workspaces import SOURCE, ingested

from gristmill.models.classifier_quality import area_under_roc
from gristmill.models.classifier_training import POSITIVE, train_classifier
from gristmill.models.one_line import LABEL_PREFIX, one_line
from gristmill.models.text_classifier import FILE
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.score_documents import score_shard
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.target_classifier import TargetClassifier

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
PEER = Path(__file__).with_name("peer_datatrove_fasttext.py")
PEER_PACKAGES = ["datatrove[processing]==0.10.1", "fasttext-numpy2-wheel", "fasteners", "orjson"]
BOOKS = "books_gutenberg"
MAX_NEGATIVES = 6000
Probabilities = npt.NDArray[np.float64]


def read_rows(paths: Sequence[Path]) -> Iterator[tuple[bool, str]]:
    """Whether it is a book, and the text, of every document."""
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for row in map(json.loads, file):
                yield row["source"] == BOOKS, row["text"]


def train(folder: Path, paths: Sequence[Path]) -> Path:
    """A classifier of books against other texts."""
    rows = list(read_rows(paths))
    books, others = ([text for is_book, text in rows if is_book is wanted] for wanted in (True, False))
    positives, negatives = (pa.array(texts, pa.large_string()) for texts in (books, others[:MAX_NEGATIVES]))
    train_classifier(positives, negatives, str(folder / FILE))
    return folder


def score_with_ours(workspace: Workspace, scorer: TargetClassifier) -> Probabilities:
    """Probabilities of all documents, from the Parquet files of a whole scoring."""
    parts = []
    for shard in read_corpus(workspace):
        score_shard(workspace, shard, [scorer])
        table = pq.read_table(workspace.scores(scorer.name, scorer.fingerprint(), shard.name))
        parts.append(table["target_probability"].to_numpy())
    return np.concatenate(parts).astype(np.float64)


def of_positives(labels: list[list[str]], probabilities: list[Any]) -> Probabilities:
    """Probability of a positive, from the likeliest label of each text and its probability."""
    is_positive = np.array([label[0] for label in labels]) == f"{LABEL_PREFIX}{POSITIVE}"
    values = np.array([value[0] for value in probabilities], np.float64)
    return np.where(is_positive, values, 1 - values)


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """What a function returns, and its seconds of CPU."""
    started = time.process_time()
    return function(*arguments), time.process_time() - started


def main() -> None:
    """Print speeds, ratios and differences."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", type=Path)
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with *.jsonl.gz")
    arguments = parser.parse_args()
    paths = sorted(arguments.corpus.glob("*.jsonl.gz"))
    if not paths:
        print(f"{arguments.corpus} is not there; name another folder with --corpus")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = train(folder, paths[::2])
        is_book, texts = zip(*itertools.islice(read_rows(paths[1::2]), arguments.documents), strict=True)
        num_mb = sum(len(text.encode()) for text in texts) / 1e6
        workspace = ingested(folder, texts)
        scorer = TargetClassifier(model=str(model))
        scorer.setup()
        binding = fasttext.load_model(str(model / FILE))
        lines = [f"{line}\n" for line in one_line(pa.array(texts, pa.large_string())).to_pylist()]
        ours, theirs, peers = [], [], []
        for _ in range(arguments.runs):
            found, seconds = timed(score_with_ours, workspace, scorer)
            ours.append(seconds)
            likeliest, seconds = timed(binding.f.multilinePredict, lines, 1, 0.0, "strict")
            theirs.append(seconds)
            python = arguments.peer_python or peer_python("datatrove-fasttext", PEER_PACKAGES)
            command = [python, PEER, model / FILE, folder / SOURCE, POSITIVE]
            peer = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            peers.append(peer["cpu_s"])
    books = np.array(is_book)
    area = area_under_roc(found[books], found[~books])
    print(f"{len(texts):,} documents, {num_mb:.1f} MB; books against others with an AUC of {area:.4f}")
    print(f"gristmill, shard to scores: {num_mb / min(ours):.1f} MB/s ({min(ours):.2f} s)")
    for name, seconds, values in (
        ("binding, lists in memory", min(theirs), of_positives(*likeliest)),
        ("datatrove, documents in memory", min(peers), np.array(peer["probability"])),
    ):
        print(
            f"{name}: {num_mb / seconds:.1f} MB/s ({seconds:.2f} s), ratio {seconds / min(ours):.2f}x; probabilities "
            f"differ by {np.abs(values - found).max():.1e} at most, {np.mean((values > 0.5) == (found > 0.5)):.2%} of "
            "decisions at 0.5 agree"
        )


if __name__ == "__main__":
    main()
