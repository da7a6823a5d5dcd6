"""Language identification: accuracy by language and text length, calibration and speed of the candidates, in
one run.

    python tests/bench/bench_language.py [--languages] [--data FOLDER]

Texts are cut to their first 20, 50, ... characters; a text counts for a length it has. Norwegian is one
language ("nb" is "no"). Times are of one process, with the texts in memory.
"""

import argparse
import gzip
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from py3langid.langid import MODEL_FILE
from py3langid.langid import LanguageIdentifier as Peer
from resiliparse.parse.lang import detect_fast, supported_langs

from gristmill.models.language_identifier import LanguageIdentifier

DATA = Path(__file__).resolve().parents[3] / "shared/data/multilingual"
LENGTHS = (20, 50, 100, 300, 1000, 10_000)
THRESHOLD = 0.65

Predict = Callable[[Sequence[str]], list[tuple[str, float]]]


def documents(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Set, language and text of every document."""
    sets = {
        "sentences": ["lingua_sentences_75langs"],
        "wikipedia": ["wikipedia_9langs", "wikipedia_ko", "wikipedia_zh"],
        "udhr": ["udhr_declarations"],
    }
    for name, stems in sets.items():
        for stem in stems:
            with gzip.open(folder / f"{stem}.jsonl.gz") as lines:
                for row in map(json.loads, lines):
                    label = row.get("bcp47", row["label"]) or ""
                    yield name, label.split("-")[0].replace("nb", "no"), row["text"]


def main() -> None:
    """Print one line a set, length and detector."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--languages", action="store_true", help="also print accuracy by language")
    parser.add_argument("--data", type=Path, default=DATA)
    arguments = parser.parse_args()

    model = LanguageIdentifier.load()
    peer = Peer.from_model_file(MODEL_FILE, norm_probs=True)

    def ours(texts: Sequence[str]) -> list[tuple[str, float]]:
        return list(zip(*model.predict(pa.array(texts, pa.large_string())), strict=True))

    detectors: dict[str, Predict] = {
        "gristmill": ours,
        "py3langid": lambda texts: [peer.classify(text) for text in texts],
        "resiliparse": lambda texts: [detect_fast(text) for text in texts],
    }
    known = set(peer.labels) & set(supported_langs())
    by_set = defaultdict(list)
    for name, label, text in documents(arguments.data):
        by_set[name].append((label, text))

    by_language: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for name, rows in by_set.items():
        for length in LENGTHS:
            texts = [text[:length] for _, text in rows if len(text) >= length]
            truth = np.array([label for label, text in rows if len(text) >= length])
            if len(texts) < 100:
                continue
            shared = np.isin(truth, list(known))
            for detector, predict in detectors.items():
                start = time.perf_counter()
                predicted = predict(texts)
                seconds = time.perf_counter() - start
                right = np.array([label for label, _ in predicted]) == truth
                line = (
                    f"{name:10} {length:6} characters  {detector:11}  {len(texts):6} texts  "
                    f"accuracy {right.mean():.3f}, of {len(set(truth[shared])):2} shared languages "
                    f"{right[shared].mean():.3f}  {len(texts) / seconds:8.0f} documents/s"
                )
                if detector != "resiliparse":
                    sure = np.array([probability for _, probability in predicted]) > THRESHOLD
                    line += f"  over {THRESHOLD}: {sure.mean():.3f} of texts, {right[sure].mean():.3f} right"
                print(line, flush=True)
                for language in set(truth) if name == "sentences" else ():
                    by_language[language, detector][length] = right[truth == language].mean()
    if arguments.languages:
        for (language, detector), accuracies in sorted(by_language.items()):
            cells = "  ".join(f"{length}: {accuracy:.2f}" for length, accuracy in accuracies.items())
            print(f"{language:4} {detector:11}  {cells}")


if __name__ == "__main__":
    main()
