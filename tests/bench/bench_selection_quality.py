"""How well scores find books in a mixed pool: CoLoR-Filter beside importance weights, perplexity and a classifier.

    python tests/bench/bench_selection_quality.py [--documents N] [--size 1m] [--prior-tokens N] [--corpus FOLDER]

The books are split by title: one half is the target, the other is hidden in the pool, 5 % of its documents beside web
pages, news, reviews, encyclopaedia, mail and papers. One recipe trains every model on one core and scores the pool,
through the command line. Printed for each score: the area under the ROC curve of books against the rest (0.5 is
chance), and the books' share of the best eighth of the pool, by tokens.
"""

import argparse
import gzip
import json
import random
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gristmill.models.classifier_quality import area_under_roc
from gristmill.pipelines.cli import main as gristmill
from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.workspace import Workspace

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"
BOOKS = "books_gutenberg"
OTHERS = {
    "web": ("openwebtext", "webkb_html", "blogs"),
    "news": ("ag_news", "bbc_news", "reuters21578"),
    "reviews": ("imdb",),
    "encyclopaedia": ("wikipedia_en",),
    "mail": ("20newsgroups", "ling_spam"),
    "papers": ("arxiv_abstracts",),
}
SHARE_OF_BOOKS = 0.05
KEPT = 1 / 8
SCORES = {
    "color_filter": ("color_filter", 1),
    "importance (DSIR)": ("importance", 1),
    "importance, a word": ("importance_per_ngram", 1),
    "target classifier": ("target_probability", 1),
    "conditional only": ("nll_conditional", -1),
    "perplexity": ("perplexity", -1),
}
"""What is compared: its column, and the sign that puts the better end on top."""


def read_records(folder: Path) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The documents of the pool's sources, and the books by title."""
    wanted = {source for sources in OTHERS.values() for source in sources}
    others, books = [], defaultdict(list)
    for path in sorted(folder.glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for record in map(json.loads, file):
                if record["source"] == BOOKS:
                    books[str(record["title"])].append(record)
                elif record["source"] in wanted:
                    others.append(record)
    return others, books


def write_inputs(folder: Path, corpus: Path, num_documents: int, num_target: int) -> None:
    """Pool and target as JSON lines; no title is in both."""
    rng = random.Random(0)
    others, books = read_records(corpus)
    titles = sorted(books)
    rng.shuffle(titles)
    half = len(titles) // 2
    target, hidden = (
        [record for title in part for record in books[title]] for part in (titles[:half], titles[half:])
    )
    target = rng.sample(target, min(num_target, len(target)))
    num_books = min(round(SHARE_OF_BOOKS * num_documents), len(hidden))
    pool = rng.sample(others, min(num_documents - num_books, len(others))) + rng.sample(hidden, num_books)
    rng.shuffle(pool)
    for name, records in (("pool", pool), ("target", target)):
        rows = ({key: record[key] for key in ("id", "text", "source")} for record in records)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    print(f"pool: {len(pool):,} documents, {num_books:,} of them books; target: {len(target):,} documents")


def recipe(arguments: argparse.Namespace) -> dict[str, Any]:
    """What is trained and scored."""
    return {
        "workspace": "mill",
        "corpus": [{"path": "pool.jsonl", "source": "pool", "source_field": "source"}],
        "target": {"path": "target.jsonl", "source": "books"},
        "models": {
            "tokenizer": {"vocab_size": 4096},
            "prior": {
                "size": arguments.size,
                "context": arguments.context,
                "tokens": arguments.prior_tokens,
                "batch_tokens": 4096,
                "learning_rate": 3e-3,
            },
            "conditional": {"batch_tokens": 4096, "learning_rate": 1e-3},
        },
        "score": ["color_filter", "perplexity", "importance", "target_classifier"],
    }


def read_columns(workspace: Workspace) -> pa.Table:
    """Source and scores of every document."""
    current = workspace.read_json("scores", "current.json")
    tables = []
    for shard in read_corpus(workspace):
        table = pq.read_table(workspace.documents(shard.name), columns=["source"])
        for scorer, fingerprint in current.items():
            scores = pq.read_table(workspace.scores(scorer, fingerprint, shard.name))
            for name in scores.column_names[1:]:
                table = table.append_column(name, scores[name])
        tables.append(table)
    return pa.concat_tables(tables)


def share_of_best(
    values: npt.NDArray[np.float64], is_book: npt.NDArray[np.bool_], num_tokens: npt.NDArray[np.int64]
) -> float:
    """The books' share of the tokens of the best documents that hold `KEPT` of all."""
    order = np.argsort(-values, kind="stable")
    before = np.cumsum(num_tokens[order]) - num_tokens[order]
    kept = order[before < KEPT * num_tokens.sum()]
    return float(num_tokens[kept][is_book[kept]].sum() / num_tokens[kept].sum())


def main() -> None:
    """Train, score and print a line a score."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--documents", type=int, default=13_900)
    parser.add_argument("--size", default="1m")
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--prior-tokens", type=int, default=1_200_000)
    parser.add_argument("--target-documents", type=int, default=600, help="about 0.6 million tokens")
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with *.jsonl.gz")
    arguments = parser.parse_args()
    if not arguments.corpus.exists():
        print(f"{arguments.corpus} is not there; name another folder with --corpus")
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_inputs(folder, arguments.corpus, arguments.documents, arguments.target_documents)
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(arguments)))
        started = time.monotonic()
        gristmill(["run", str(folder / "recipe.yaml"), "--quiet"], standalone_mode=False)
        workspace = Workspace(str(folder / "mill"))
        for model in ("prior", "conditional"):
            made = workspace.read_json("models", model, "manifest.json")
            print(
                f"{model}: {made['num_tokens']:,} tokens in {made['seconds']:,.0f} s, loss {made['loss']:.2f}"
            )
        print(f"all in {time.monotonic() - started:,.0f} s\n")
        table = read_columns(workspace)
    is_book = np.array(table["source"].to_pylist()) == BOOKS
    num_tokens = table["num_tokens"].to_numpy()
    print(f"{'score':20} {'area under ROC':>15} {'books of the best eighth':>25}")
    for name, (column, sign) in SCORES.items():
        values = sign * table[column].to_numpy().astype(np.float64)
        area = area_under_roc(values[is_book], values[~is_book])
        print(f"{name:20} {area:15.4f} {share_of_best(values, is_book, num_tokens):25.1%}")
    chance = num_tokens[is_book].sum() / num_tokens.sum()
    print(f"{'at random':20} {0.5:15.4f} {chance:25.1%}")


if __name__ == "__main__":
    main()
