"""Main-text extraction against trafilatura: accuracy on pages with gold text, and speed, in one run.

    python tests/bench/bench_extraction.py [--peer-python PYTHON] [--benchmark ARCHIVE]

The measure is that of the article extraction benchmark (Scrapinghub 2020, `evaluate.py`): shingles of 4
words, precision and recall averaged over pages. Times are of one process, from bytes to text; reading the
archive is not counted. The peer runs in an environment of its own, made for the run unless one is named.
"""

import argparse
import gzip
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from gristmill.pipelines.extract_html import Extractor, extract_text

BENCHMARK = Path(__file__).resolve().parents[3] / "shared/data/raw" / "article-extraction-benchmark.tar.gz"
ROUNDS = 3
PEER = """
import json, sys, time
from pathlib import Path
import trafilatura
pages = [path.read_bytes() for path in sorted(Path(sys.argv[1]).iterdir())]
results = {"version": trafilatura.__version__}
for name, options in (("default", {}), ("fast", {"fast": True}), ("precise", {"favor_precision": True})):
    start = time.perf_counter()
    texts = [trafilatura.extract(page, **options) or "" for page in pages]
    results[name] = [time.perf_counter() - start, texts]
print(json.dumps(results))
"""


def shingles(text: str) -> Counter[tuple[str, ...]]:
    """Counts of 4-word shingles, of the whole text where it is shorter."""
    words = re.findall(r"\w+", text)
    return Counter(tuple(words[i : i + 4]) for i in range(max(1, len(words) - 3)) if words)


def f1_precision_recall(gold: Sequence[str], found: Sequence[str]) -> tuple[float, float, float]:
    """F1 of mean precision and mean recall over pages."""
    precisions, recalls = [], []
    for gold_text, found_text in zip(gold, found, strict=True):
        expected, got = shingles(gold_text), shingles(found_text)
        shared = (expected & got).total()
        if got:
            precisions.append(shared / got.total())
        if expected:
            recalls.append(shared / expected.total())
    precision, recall = statistics.mean(precisions), statistics.mean(recalls)
    return 2 * precision * recall / (precision + recall), precision, recall


def peer_python(folder: Path) -> str:
    """An interpreter that has trafilatura."""
    venv.create(folder, with_pip=True)
    python = str(folder / "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "trafilatura"], check=True)
    return python


def timed(extract: Callable[[Sequence[bytes]], list[str]], pages: Sequence[bytes]) -> tuple[float, list[str]]:
    """Best of some rounds, seconds, and the texts."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        texts = extract(pages)
        seconds.append(time.perf_counter() - start)
    return min(seconds), texts


def main() -> None:
    """Print accuracy, pages a second and the ratio to the peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer-python", help="interpreter of an environment that has trafilatura")
    parser.add_argument("--benchmark", type=Path, default=BENCHMARK)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(arguments.benchmark) as archive:
            archive.extractall(folder, filter="data")
        gold_texts = json.loads(Path(folder, "ground-truth.json").read_text())
        html = Path(folder, "pages")
        html.mkdir()
        for path in Path(folder, "html").iterdir():
            (html / path.name.removesuffix(".html.gz")).write_bytes(gzip.decompress(path.read_bytes()))
        names = sorted(path.name for path in html.iterdir())
        gold = [gold_texts[name]["articleBody"] for name in names]
        pages = [(html / name).read_bytes() for name in names]

        with Extractor() as extractor:
            extractor.extract([(b"", None)])
            results = {
                "resiliparse, in process": timed(lambda pages: [extract_text(page) for page in pages], pages),
                "resiliparse, Extractor": timed(
                    lambda pages: [
                        result.text or "" for result in extractor.extract([(page, None) for page in pages])
                    ],
                    pages,
                ),
            }
        python = arguments.peer_python or peer_python(Path(folder, "peer"))
        peer = json.loads(subprocess.run([python, "-c", PEER, html], check=True, capture_output=True).stdout)
        results |= {
            f"trafilatura {peer['version']}, {name}": peer[name] for name in ("default", "fast", "precise")
        }

    num_bytes = sum(map(len, pages))
    print(f"{len(pages)} pages, {num_bytes / 1e6:.1f} MB, Python {sys.version.split()[0]}, one process")
    base = results["resiliparse, Extractor"][0]
    for name, (seconds, texts) in results.items():
        f1, precision, recall = f1_precision_recall(gold, texts)
        print(
            f"{name:28} F1 {f1:.3f}  precision {precision:.3f}  recall {recall:.3f}  "
            f"{len(pages) / seconds:6.1f} pages/s  {num_bytes / seconds / 1e6:5.1f} MB/s  "
            f"Extractor is {seconds / base:4.1f} times as fast"
        )


if __name__ == "__main__":
    main()
