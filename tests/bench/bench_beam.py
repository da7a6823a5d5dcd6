"""What Beam costs: a full local run with one worker against the same pure functions called in a loop.

    python tests/bench/bench_beam.py [--corpus FOLDER] [--scorers rules,exact_duplicate]

Both ways run in this process over the same inputs (212 MB of text), one after the other, `--rounds` times in turn, and
must leave the same bytes.
"""

import argparse
import hashlib
import shutil
import tempfile
import time
from pathlib import Path

from gristmill.pipelines import write_dataset
from gristmill.pipelines.corpus import commit_corpus
from gristmill.pipelines.curate import Curation
from gristmill.pipelines.extract_html import Extractor
from gristmill.pipelines.plan_splits import commit_plan
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.read_documents import Limits, write_split
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.score_documents import commit_scores, score_shard
from gristmill.pipelines.select_documents import BlockLists, select_documents
from gristmill.pipelines.workspace import open_workspace

CORPUS = Path(__file__).resolve().parents[3] / "shared/data/corpus"


def make_curation(folder: Path, corpus: Path, scorers: list[str]) -> Curation:
    """A recipe with every stage in it."""
    recipe = Recipe.model_validate(
        {
            "workspace": str(folder),
            "corpus": [{"path": f"{corpus}/*.jsonl.gz", "source": "mixed", "source_field": "source"}],
            "score": scorers,
            "select": {
                "name": "bench",
                "where": {"long_enough": "rps_doc_word_count > 50"},
                "deduplicate": {},
                "top": {
                    "by": "rps_doc_word_count",
                    "keep": "1/2",
                    "of": "characters",
                    "direction": "highest",
                },
            },
        }
    )
    return prepare(recipe, beam_options([]))


def run_loop(curation: Curation) -> None:
    """The stages without Beam."""
    workspace = open_workspace(curation.recipe.workspace, create=True)
    plan = curation.plan_ingest(workspace)
    commit_plan(workspace, plan)
    limits = Limits(plan.shard_bytes, curation.recipe.max_document_bytes)
    for split in plan.splits:
        list(write_split(workspace, split, limits, Extractor()))
    shards, _ = commit_corpus(workspace, plan)
    for scorer in curation.scorers:
        scorer.setup()
    for shard in shards:
        score_shard(workspace, shard, curation.scorers)
    for scorer in curation.scorers:
        commit_scores(workspace, shards, scorer)
    (compiled,) = curation.selections
    select_documents(workspace, shards, curation.scorers, compiled, BlockLists())
    export = curation.recipe.export
    for part in write_dataset.plan_parts(workspace, "bench", shards):
        write_dataset.write_part(part, workspace, "bench", export, "loop")


def data_digest(folder: Path) -> str:
    """A digest of the corpus, documents, scores and decisions."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if relative.parts[0] in ("corpus", "documents", "scores", "decisions") and path.suffix in (
            ".arrow",
            ".parquet",
        ):
            state.update(str(relative).encode() + path.read_bytes())
    return state.hexdigest()


def main() -> None:
    """Print the two times and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--scorers", default="rules,exact_duplicate")
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    times: dict[str, list[float]] = {"loop": [], "beam": []}
    digests = set()
    for _ in range(arguments.rounds):
        for name in times:
            folder = Path(tempfile.mkdtemp())
            curation = make_curation(folder, arguments.corpus, arguments.scorers.split(","))
            started, used = time.perf_counter(), time.process_time()
            if name == "loop":
                run_loop(curation)
            else:
                curation.run()
            times[name].append(time.perf_counter() - started)
            print(f"{name}: {times[name][-1]:.1f} s, {time.process_time() - used:.1f} s of CPU", flush=True)
            digests.add(data_digest(folder))
            shutil.rmtree(folder)
    best = {name: min(values) for name, values in times.items()}
    print(f"Beam over loop: {best['beam'] / best['loop']:.2f}; same bytes: {len(digests) == 1}")


if __name__ == "__main__":
    main()
