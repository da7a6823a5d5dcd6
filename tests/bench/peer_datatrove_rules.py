"""Decisions and times of datatrove's four quality filters, run by bench_rules.py in a venv of their own.

    python peer_datatrove_rules.py DOCUMENTS.jsonl

Prints one JSON object: filter -> {"reasons": one string a document, empty where it is kept, "cpu_s": seconds}.
"""

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
)


def main() -> None:
    """Run each filter over all documents."""
    with Path(sys.argv[1]).open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    filters = {
        "gopher_repetition_pass": GopherRepetitionFilter(),
        "gopher_quality_pass": GopherQualityFilter(),
        "c4_pass": C4QualityFilter(),
        "fineweb_pass": FineWebQualityFilter(),
    }
    results = {name: {"reasons": [], "cpu_s": 0.0} for name in filters}
    for quality_filter in filters.values():
        quality_filter.filter(Document(text="Load the models. Then start the clock.", id="warm-up"))
    # Document by document, so that the filters share datatrove's cache of words as they do in its pipelines.
    for text in texts:
        for name, quality_filter in filters.items():
            start = time.process_time()
            decision = quality_filter.filter(Document(text=text, id="document"))
            results[name]["cpu_s"] += time.process_time() - start
            results[name]["reasons"].append("" if decision is True else decision[1])
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
