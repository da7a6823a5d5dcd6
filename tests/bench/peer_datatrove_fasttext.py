"""Probabilities and time of datatrove's fastText filter, run by bench_text_classifier.py in a venv of its own.

    python peer_datatrove_fasttext.py MODEL LINES.jsonl LABEL

Prints one JSON object: {"probability": one a document, "cpu_s": seconds of the filter alone, documents in memory}.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import FastTextClassifierFilter


def main() -> None:
    """Run the filter over all documents."""
    model, lines, label = sys.argv[1:]
    with Path(lines).open(encoding="utf-8") as file:
        documents = [Document(text=json.loads(line)["text"], id="document") for line in file]
    # A space for a line end: the default, nothing, glues words together that training saw apart.
    labels = FastTextClassifierFilter(model, keep_labels=(label, 0.5), newline_replacement=" ")
    labels.filter(Document(text="Load the model. Then start the clock.", id="warm-up"))
    start = time.process_time()
    for document in documents:
        labels.filter(document)
    seconds = time.process_time() - start
    probability = [document.metadata[f"__label__{label}"] for document in documents]
    json.dump({"probability": probability, "cpu_s": seconds}, sys.stdout)


if __name__ == "__main__":
    main()
