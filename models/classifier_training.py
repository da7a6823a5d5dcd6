"""Trains fastText classifiers of two classes; `text_classifier` is what uses them.

Training happens in a child process of its own with one thread. fastText sets a tenth of its input matrix to random
values for each thread and in some builds leaves the rest to what the memory held before, which in a process that has
worked already may be NaN; and several threads race for the weights, so that no two models are the same bytes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.models.fasttext_file import END_OF_LINE, zero_word
from gristmill.models.one_line import LABEL_PREFIX, Family, one_line, save_family

POSITIVE = "1"
NEGATIVE = "0"
FAMILY: Family = "default"
TEXTS_PER_WRITE = 1000


def train_classifier(
    positives: pa.LargeStringArray,
    negatives: pa.LargeStringArray,
    path: str,
    *,
    lr: float = 0.1,
    dim: int = 100,
    word_ngrams: int = 2,
    epoch: int = 5,
    bucket: int = 1 << 18,
    seed: int = 0,
    threads: int = 1,
    zero_end_of_line: bool = True,
) -> None:
    """Train a classifier that tells positives (label 1) from negatives (label 0), with softmax over words and n-grams.

    The same texts, options and seed give the same bytes with one thread. The defaults are those of PreSelect (Shum
    et al. 2025, table 5) and, but for `zero_end_of_line`, of DCLM; `bucket` is smaller. fastText's autotune is not
    offered: it searches for so many seconds, and finds another model on another machine. Compare a few values of
    `epoch` by their quality on held-out texts, which matters most.

    Args:
        positives: Texts of the target, at least one.
        negatives: Texts of the pool, at least one; classes of unequal size shift the probabilities.
        path: The `.bin` file to write; how its texts became lines goes into `normalisation.json` beside it.
        lr: Learning rate at the start; it falls linearly to 0.
        dim: Length of the vector of a word.
        word_ngrams: Words in the longest n-gram.
        epoch: Passes over the texts. Few texts need more: from 970 a class, 5 ranked others with an AUC of 0.94 and
            probabilities near a half, 25 with 0.99 and probabilities from 0 to 1.
        bucket: Vectors that n-grams of several words share by hash. A file takes 4 * dim bytes for each of them and
            for each distinct word of the texts: 105 MB for the default, where fastText's own 2,000,000 take 800 MB.
        seed: Of the order of the texts and of fastText's random numbers; from 0 to 2^31 - 1.
        threads: More are faster and give other bytes every time.
        zero_end_of_line: Whether the vector of the word that ends every line is set to zero after training, as the
            paper has it and its script has not: that word is half of a text of one word and nothing of a long one,
            so it favours one class by length. N-grams that hold it keep their vectors. From 1,200 books against as
            many other texts in 5 and 25 epochs, the AUC of held-out ones was 0.912 and 0.987 with it and 0.927 and
            0.994 without, books being long; of whole texts among texts cut to 10 words, 0.82 and 0.91 against 0.77
            and 0.74.

    Raises:
        ValueError: If a class has no text.
        RuntimeError: If fastText fails, for instance since no text has a word.
    """
    for name, texts in (("positive", positives), ("negative", negatives)):
        if len(texts) == 0:
            raise ValueError(f"found no {name} text to train a classifier from, expected at least one")
    with TemporaryDirectory(dir=Path(path).parent) as folder:
        lines, model = Path(folder, "train.txt"), Path(folder, "model.bin")
        _write_lines(lines, positives, negatives, seed)
        options = {
            "input": str(lines),
            "lr": lr,
            "dim": dim,
            "wordNgrams": word_ngrams,
            "epoch": epoch,
            "bucket": bucket,
            "seed": seed,
            "thread": threads,
            "verbose": 0,
        }
        _train_in_child(options, model)
        if zero_end_of_line:
            zero_word(model, END_OF_LINE)
        model.replace(path)
    save_family(Path(path).parent, FAMILY)


def _write_lines(
    path: Path, positives: pa.LargeStringArray, negatives: pa.LargeStringArray, seed: int
) -> None:
    """Write one labelled line a text, shuffled: fastText learns in the order of the file."""
    texts = pa.chunked_array([positives, negatives])
    order = np.random.default_rng(seed).permutation(len(texts))
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for start in range(0, len(order), TEXTS_PER_WRITE):
            rows = order[start : start + TEXTS_PER_WRITE]
            labels = np.where(rows < len(positives), POSITIVE, NEGATIVE).tolist()
            lines = one_line(texts.take(pa.array(rows)), FAMILY).to_pylist()
            file.writelines(
                f"{LABEL_PREFIX}{label} {line}\n" for label, line in zip(labels, lines, strict=True)
            )


def _train_in_child(options: dict[str, Any], model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", __name__, json.dumps(options), str(model)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise RuntimeError(f"fastText cannot train the classifier: {reason}")


def main(options: str, path: str) -> None:
    """Train and save a model; what the child process runs.

    Args:
        options: Arguments of `fasttext.train_supervised` as JSON.
        path: File to write.
    """
    import fasttext

    model = fasttext.train_supervised(**json.loads(options))
    if not np.isfinite(model.get_input_matrix()).all():
        raise RuntimeError("the model holds values that are no numbers")
    model.save_model(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
