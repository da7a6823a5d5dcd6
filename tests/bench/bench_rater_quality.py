"""Raters trained here on human labels, beside fastText on the same split and a rater that sees only length.

    python tests/bench/bench_rater_quality.py [--seeds N] [--data FOLDER]

Every set is divided into train, val and test by a hash of its texts, or of what must stay together: excerpts by their
author, the two spans of a story. `gristmill train` does the same with a recipe. fastText is trained twice, 5 and 25
epochs, and the better on val is judged; where labels are real numbers, it tells those above the median from the others.
The numbers are means over `--seeds` divisions, by the test part of each: Spearman for real labels, else the area under
the ROC curve.
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gristmill.models.classifier_training import POSITIVE, train_classifier
from gristmill.models.rater_quality import auc, spearman
from gristmill.models.rater_training import Kind, LabelledTexts, judge, train_head
from gristmill.models.text_classifier import FILE, TextClassifier
from gristmill.pipelines.recipe_raters import RaterModel
from gristmill.pipelines.train_raters import labelled_parts

DATA = Path(__file__).resolve().parents[3] / "shared/data"
EPOCHS = (5, 25)
MIN_SPAN, SPAN_SHARE = 20, 0.75
Row = dict[str, Any]


@dataclass(frozen=True)
class LabelSet:
    """Human labels for one dimension.

    Args:
        dimension: The scorer.
        name: What the labels are.
        kind: Of the head.
        rows: Data folder -> records of text, label and group.
    """

    dimension: str
    name: str
    kind: Kind
    rows: Callable[[Path], Iterable[Row]]


def read(path: Path) -> Iterator[Row]:
    """The records of a file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def excerpts(data: Path) -> Iterator[Row]:
    """CLEAR: excerpts for grades 3 to 12, with the ease that teachers saw in pairs of them."""
    for row in read(data / "quality/clear_readability.jsonl.gz"):
        yield {"text": row["text"], "label": row["label"], "group": row["author"] or row["id"]}


def tweets(data: Path) -> Iterator[Row]:
    """Davidson et al.: tweets that a crowd called hate, offensive or neither."""
    for row in read(data / "quality/davidson_hate_offensive.jsonl.gz"):
        yield {"text": row["text"], "label": int(row["label"] != "neither"), "group": row["text"]}


def spans(data: Path) -> Iterator[Row]:
    """RoFT: stories that a human began and GPT-2 continued, a span of as many words of each.

    Both spans begin with a sentence, and neither reaches its end, where the human's has a full stop.
    """
    for row in read(data / "quality/human_vs_machine_gpt2.jsonl.gz"):
        boundary = row["text"].find(row["label"])
        parts = row["text"][:boundary].split(), row["text"][boundary:].split()
        num_words = int(SPAN_SHARE * min(map(len, parts)))
        if boundary > 0 and num_words >= MIN_SPAN:
            for label, words in enumerate(parts):
                yield {"text": " ".join(words[:num_words]), "label": label, "group": row["id"]}


def sentences(data: Path) -> Iterator[Row]:
    """CoLA: sentences that linguists call acceptable or not."""
    for row in read(data / "quality/cola_acceptability.jsonl.gz"):
        yield {"text": row["text"], "label": row["label"], "group": row["text"]}


def headlines(data: Path) -> Iterator[Row]:
    """Headlines of news, 1, and of sites known for clickbait, 0."""
    for row in read(data / "quality/clickbait_headlines.jsonl.gz"):
        yield {"text": row["text"], "label": int(row["label"] != "clickbait"), "group": row["text"]}


def mails(data: Path) -> Iterator[Row]:
    """Ling-Spam: mails of a list for linguists, 1, and spam, 0."""
    for path in sorted((data / "corpus").glob("*.jsonl.gz")):
        for row in read(path):
            if row["source"] == "ling_spam":
                yield {"text": row["text"], "label": int(row["label"] == "ham"), "group": row["text"]}


LABEL_SETS = (
    LabelSet("readability", "CLEAR", "regression", excerpts),
    LabelSet("toxicity", "tweets", "classification", tweets),
    LabelSet("machine_written", "GPT-2 spans", "classification", spans),
    LabelSet("fluency", "CoLA", "classification", sentences),
    LabelSet("cleanliness", "clickbait", "classification", headlines),
    LabelSet("cleanliness", "Ling-Spam", "classification", mails),
)


def measure(values: npt.NDArray[Any], labels: npt.NDArray[np.float64], kind: Kind) -> float:
    """Spearman or area under the ROC curve."""
    found = (spearman if kind == "regression" else auc)(values.astype(np.float64), labels)
    assert found is not None
    return found


def fasttext_score(parts: dict[str, LabelledTexts], kind: Kind) -> float:
    """What fastText reaches on the test part, with the epochs that are best on val."""
    train = parts["train"]
    is_high = train.labels > (np.median(train.labels) if kind == "regression" else 0.5)
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, FILE)
        for epoch in EPOCHS:
            positives, negatives = (train.texts.filter(pa.array(rows)) for rows in (is_high, ~is_high))
            train_classifier(positives, negatives, str(path), epoch=epoch)
            classifier = TextClassifier.load(path)
            scores.append(
                [
                    measure(classifier.probability(parts[part].texts, POSITIVE), parts[part].labels, kind)
                    for part in ("val", "test")
                ]
            )
    return max(scores)[1]


def distinct_words(texts: pa.LargeStringArray) -> npt.NDArray[np.float64]:
    """Share of distinct words, of n texts."""
    words = [text.split() for text in texts.to_pylist()]
    return np.array([len(set(found)) / len(found) for found in words])


def compare(found: LabelSet, labels: Path, seed: int) -> dict[str, float]:
    """All numbers of one division."""
    parts = labelled_parts(RaterModel(labels=str(labels), kind=found.kind, group="group", seed=seed))
    started = time.process_time()
    trained = train_head(found.dimension, parts["train"], parts["val"], found.kind)
    seconds = time.process_time() - started
    quality, test = judge(trained.head, parts["test"]), parts["test"]
    length_alone = quality.length_alone if found.kind == "regression" else quality.length_alone_auc
    return {
        "ours": (quality.spearman if found.kind == "regression" else quality.auc) or 0.0,
        "fasttext": fasttext_score(parts, found.kind),
        "length": abs(length_alone or 0.0),
        "with_length": quality.spearman_with_length or 0.0,
        "distinct": measure(distinct_words(test.texts), test.labels, found.kind),
        "seconds": seconds,
        "train": len(parts["train"].labels),
        "test": len(test.labels),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with quality/ and corpus/")
    arguments = parser.parse_args()
    if not (arguments.data / "quality").is_dir():
        print(f"{arguments.data} is not there; name another folder with --data")
        return
    print(
        f"{'dimension':16} {'labels':12} {'measure':9} {'ours':>6} {'fastText':>9} {'only length':>12} "
        f"{'rating ~ length':>16} {'only distinct words':>20} {'train':>7} {'test':>6} {'seconds':>8}"
    )
    for found in LABEL_SETS:
        with tempfile.TemporaryDirectory() as folder:
            labels = Path(folder, "labels.jsonl")
            labels.write_text("".join(f"{json.dumps(row)}\n" for row in found.rows(arguments.data)))
            runs = [compare(found, labels, seed) for seed in range(arguments.seeds)]
        mean = {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}
        print(
            f"{found.dimension:16} {found.name:12} {'Spearman' if found.kind == 'regression' else 'AUC':9} "
            f"{mean['ours']:6.3f} {mean['fasttext']:9.3f} {mean['length']:12.3f} {mean['with_length']:16.2f} "
            f"{mean['distinct']:20.3f} {mean['train']:7.0f} {mean['test']:6.0f} {mean['seconds']:8.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
