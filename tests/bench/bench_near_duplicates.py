"""Quality of near-duplicate marking against the exact Jaccard similarity of every pair of documents.

    python tests/bench/bench_near_duplicates.py [--data FOLDER] [--documents N]

Each corpus is ingested, signed and deduplicated by the pipeline itself; the truth is an inverted index over the same
shingles. For three labelled sets and a generated corpus (templates with many fillings, chains of drifting copies),
and for each layout of bands:

- members whose true similarity to their representative is below the threshold, which must be none;
- of all pairs at or above the threshold, those left with both documents kept, beside what the LSH formula predicts
  for pairs of these similarities;
- of all pairs that the labels call duplicates, precision, recall and F1 of standing in one cluster, and the same
  against the pairs at or above the threshold. Labels tell what a text is (revisions of one post, licences of one
  family, planted copies), not how much of it is shared: the last column is the best F1 that any threshold on the exact
  similarity reaches, and at which.

text-dedup publishes an F1 of 0.952 for its MinHash on a labelled set of its own (CORE deduplication 2020).
"""

import argparse
import gzip
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from scipy import sparse

from gristmill.pipelines.corpus import read_corpus
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.score_documents import read_batches
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.bands import collision_probability
from gristmill.scorers.shingles import DATATROVE_SHINGLING, shingle_hashes
from gristmill.scorers.text import TextBatch

DATA = Path(__file__).resolve().parents[3] / "shared/data"
LAYOUTS = ((0.8, 18, 6), (0.8, 14, 8), (0.5, 37, 3))
"""Threshold, bands, rows a band: the default, datatrove's, and one for looser copies."""
NUM_PERM = 112
LOWEST = 0.1
"""Similarity below which pairs are left out when the best threshold is sought."""

Pairs = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Documents(NamedTuple):
    """A corpus and its labels.

    Args:
        rows: id and text.
        duplicates: Pairs of ids that the labels call duplicates, None where there are no labels.
    """

    rows: list[dict[str, str]]
    duplicates: set[tuple[str, str]] | None


class Truth(NamedTuple):
    """Every pair of documents that share a shingle.

    Args:
        pairs: Positions, int64[p, 2].
        jaccard: float64[p].
    """

    pairs: Pairs
    jaccard: Floats


class Clusters(NamedTuple):
    """What was marked.

    Args:
        representative: Position of each document's representative, its own where it is kept, int64[n].
        jaccard: Similarity stored with each document, 1 where it is kept.
    """

    representative: Pairs
    jaccard: Floats


def read_rows(path: Path) -> list[dict[str, str]]:
    """The records of a gzipped JSONL file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def label_pairs(rows: Iterable[dict[str, str]], label: str) -> set[tuple[str, str]]:
    """All pairs of ids of one label; an empty label is none."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        if row[label]:
            groups.setdefault(row[label], []).append(row["id"])
    return {tuple(sorted(pair)) for ids in groups.values() for pair in combinations(ids, 2)}


def labelled_sets(folder: Path) -> Iterator[tuple[str, Documents]]:
    """The sets of shared/data/neardup."""
    revisions = read_rows(folder / "gov18f_revisions.jsonl.gz")
    yield "gov18f_revisions", Documents(revisions, label_pairs(revisions, "cluster"))
    licences = read_rows(folder / "spdx_licenses.jsonl.gz")
    yield "spdx_licenses", Documents(licences, label_pairs(licences, "label"))
    planted = read_rows(folder / "articles_1000_duplicate_pairs.jsonl.gz")
    pairs = {tuple(sorted((row["a"], row["b"]))) for row in planted}
    yield "articles_1000", Documents(read_rows(folder / "articles_1000.jsonl.gz"), pairs)


def generate(num_documents: int, seed: int = 0) -> Documents:
    """Three fifths fillings of templates, one fifth chains of drifting copies, one fifth unrelated texts.

    A template is 150 to 400 words with one slot in 12; a filling replaces a share of the slots of its own, so that
    similarities run from 0.3 to 1. A link of a chain changes 1 to 4 % of the words of the one before it.
    """
    random = np.random.default_rng(seed)
    # Letters only: all numbers are one word.
    words = np.array(["".join(letters) for letters in product("abcdefghijklmnopqrstuvwxyz", repeat=3)])

    def draw(size: int) -> npt.NDArray[np.str_]:
        return words[np.minimum(random.zipf(1.3, size) + random.integers(0, 300, size), len(words)) - 1]

    texts = []
    num_fillings = 200
    for _ in range(max(num_documents * 3 // 5 // num_fillings, 1)):
        template = draw(int(random.integers(150, 400)))
        slots = np.arange(0, len(template), 12)
        for _ in range(num_fillings):
            text = template.copy()
            filled = slots[random.random(len(slots)) < random.random() * 0.7]
            text[filled] = draw(len(filled))
            texts.append(text)
    num_links = 50
    for _ in range(max(num_documents // 5 // num_links, 1)):
        text = draw(int(random.integers(150, 400)))
        for _ in range(num_links):
            texts.append(text)
            text = text.copy()
            changed = random.random(len(text)) < random.uniform(0.01, 0.04)
            text[changed] = draw(int(changed.sum()))
    texts += [draw(int(random.integers(20, 400))) for _ in range(num_documents // 5)]
    order = random.permutation(len(texts))
    rows = [{"id": f"g{number}", "text": " ".join(texts[number])} for number in order.tolist()]
    return Documents(rows, None)


def mark(folder: str, rows: Sequence[dict[str, str]]) -> Iterator[tuple[tuple[float, int, int], Workspace]]:
    """Ingest once, then deduplicate by each layout: the layout, and a workspace with its table."""
    source = Path(folder, "documents.jsonl")
    source.write_text("".join(json.dumps({"id": r["id"], "text": r["text"]}) + "\n" for r in rows), "utf-8")
    for layout in LAYOUTS:
        threshold, num_bands, rows_per_band = layout
        recipe = Recipe.model_validate(
            {
                "workspace": f"{folder}/workspace",
                "corpus": [{"path": str(source), "source": "bench"}],
                "score": [{"minhash": {"num_perm": NUM_PERM}}],
                "duplicates": {
                    "threshold": threshold,
                    "num_bands": num_bands,
                    "rows_per_band": rows_per_band,
                },
            }
        )
        prepare(recipe, beam_options([])).run(["ingest", "score", "dedup"])
        yield layout, Workspace(f"{folder}/workspace")


def exact(workspace: Workspace) -> tuple[list[str], Truth]:
    """Ids in the order of the corpus, and every pair that shares a shingle, by an inverted index."""
    ids, parts, sizes = [], [], []
    for shard in read_corpus(workspace):
        for documents in read_batches(workspace, shard.name):
            shingles = shingle_hashes(TextBatch(documents), DATATROVE_SHINGLING)
            ids += documents["id"].to_pylist()
            parts.append(shingles.hashes)
            sizes.append(np.diff(shingles.offsets))
    size = np.concatenate(sizes)
    distinct, column = np.unique(np.concatenate(parts), return_inverse=True)
    offsets = np.concatenate([[0], np.cumsum(size)])
    holds = sparse.csr_matrix(
        (np.ones(len(column), np.int32), column, offsets), shape=(len(size), len(distinct))
    )
    common = sparse.triu(holds @ holds.T, k=1).tocoo()
    pairs = np.stack([common.row, common.col], axis=1).astype(np.int64)
    jaccard = common.data / (size[pairs[:, 0]] + size[pairs[:, 1]] - common.data)
    return ids, Truth(pairs, jaccard)


def read_marked(workspace: Workspace) -> Clusters:
    """The duplicates table as positions in the corpus."""
    where: dict[object, int] = {}
    rows = []
    start = 0
    for shard in read_corpus(workspace):
        table = pq.read_table(workspace.duplicates(shard.name))
        for row in table.to_pylist():
            where[row["doc_id"]] = start + row["position"]
            rows.append(row)
        start += shard.num_rows
    representative, jaccard = np.arange(start), np.ones(start)
    for row in rows:
        member = where[row["doc_id"]]
        representative[member] = where[row["representative"]]
        jaccard[member] = row["jaccard"]
    return Clusters(representative, jaccard)


def true_similarity(truth: Truth, pairs: Pairs, num_documents: int) -> Floats:
    """Exact similarities of some pairs, 0 where they share no shingle."""
    keys = truth.pairs[:, 0] * num_documents + truth.pairs[:, 1]
    order = np.argsort(keys)
    wanted = pairs.min(axis=1) * num_documents + pairs.max(axis=1)
    where = np.minimum(np.searchsorted(keys[order], wanted), len(keys) - 1)
    return np.where(keys[order][where] == wanted, truth.jaccard[order][where], 0.0)


def f1(precision: Floats | float, recall: Floats | float) -> Floats:
    """Harmonic mean."""
    total = np.asarray(precision) + recall
    return np.divide(2 * np.asarray(precision) * recall, total, out=np.zeros_like(total), where=total > 0)


def compare(found: set[tuple[int, int]], wanted: set[tuple[int, int]]) -> str:
    """Precision, recall and F1."""
    precision = len(found & wanted) / max(len(found), 1)
    recall = len(found & wanted) / max(len(wanted), 1)
    return f"{precision:.3f} {recall:.3f} {float(f1(precision, recall)):.3f}"


def best_f1(truth: Truth, wanted: set[tuple[int, int]]) -> tuple[float, float]:
    """The best F1 of any threshold on the exact similarity, and that threshold."""
    likely = truth.jaccard >= LOWEST
    jaccard = truth.jaccard[likely]
    is_wanted = np.array([pair in wanted for pair in map(tuple, truth.pairs[likely].tolist())], bool)
    order = np.argsort(-jaccard, kind="stable")
    hits = np.cumsum(is_wanted[order])
    scores = f1(hits / np.arange(1, len(hits) + 1), hits / max(len(wanted), 1))
    best = int(np.argmax(scores))
    return float(scores[best]), float(jaccard[order][best])


def as_set(pairs: Pairs) -> set[tuple[int, int]]:
    """Pairs, the smaller position first."""
    return set(map(tuple, np.sort(pairs, axis=1).tolist()))


def report(name: str, documents: Documents) -> None:
    """Print a line a layout."""
    with tempfile.TemporaryDirectory() as folder:
        truth = None
        for (threshold, num_bands, rows_per_band), workspace in mark(folder, documents.rows):
            if truth is None:
                ids, truth = exact(workspace)
                position = {id_: number for number, id_ in enumerate(ids)}
                print(
                    f"\n{name}: {len(ids):,} documents, {len(truth.pairs):,} pairs share a shingle",
                    flush=True,
                )
            clusters = read_marked(workspace)
            members = np.flatnonzero(clusters.representative != np.arange(len(ids)))
            reached = np.stack([members, clusters.representative[members]], axis=1)
            own = true_similarity(truth, reached, len(ids))
            near = truth.jaccard >= threshold
            is_kept = clusters.representative == np.arange(len(ids))
            num_left = int(is_kept[truth.pairs[near]].all(axis=1).sum())
            missed = 1 - collision_probability(truth.jaccard[near], num_bands, rows_per_band)
            print(
                f"  {num_bands} bands of {rows_per_band} at {threshold}: {len(members):,} members, "
                f"{int((own < threshold).sum())} below the threshold, "
                f"{int((np.abs(own - clusters.jaccard[members]) > 1e-9).sum())} of another similarity than stored; "
                f"{int(near.sum()):,} true pairs, both kept {num_left} ({num_left / max(near.sum(), 1):.2%}), "
                f"predicted at most {missed.sum():.1f} ({missed.sum() / max(near.sum(), 1):.2%})"
            )
            together: set[tuple[int, int]] = set()
            groups: dict[int, list[int]] = {}
            for number, representative in enumerate(clusters.representative.tolist()):
                groups.setdefault(representative, []).append(number)
            for group in groups.values():
                together.update(combinations(group, 2))
            agreement = compare(together, as_set(truth.pairs[near]))
            print(f"    one cluster against the pairs at the threshold: P R F1 {agreement}")
            if documents.duplicates is not None:
                wanted = as_set(np.array([[position[a], position[b]] for a, b in documents.duplicates]))
                score, at = best_f1(truth, wanted)
                print(
                    f"    one cluster against {len(wanted):,} labelled pairs:      P R F1 {compare(together, wanted)}; "
                    f"best of any exact threshold {score:.3f}, at {at:.2f}",
                    flush=True,
                )


def main() -> None:
    """Report on each corpus."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA, help="folder with neardup/")
    parser.add_argument("--documents", type=int, default=5000, help="size of the generated corpus")
    arguments = parser.parse_args()
    if arguments.data.exists():
        for name, documents in labelled_sets(arguments.data / "neardup"):
            report(name, documents)
    else:
        print(f"{arguments.data} is not there; name another folder with --data")
    report("templates and chains", generate(arguments.documents))


if __name__ == "__main__":
    main()
