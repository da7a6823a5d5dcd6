"""Choosing again: seconds and memory of a selection with a token budget over generated rows of 8 scorers.

    python tests/bench/bench_reselect.py [--millions 1 5 20]

The rows are generated, written as side files of 100,000 documents and thrown away. Each size is selected in a process
of its own: predicates on 7 scores, one duplicate in 20 documents, the best quarter of the tokens by an eighth score.
Beside the speed: the tokens kept over the budget, which must be 1 within one document.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.pipelines.ledger import write_side_file
from gristmill.pipelines.records import uuid_array
from gristmill.pipelines.score_documents import Shard
from gristmill.pipelines.workspace import Workspace, open_workspace
from gristmill.scorers import schema
from gristmill.scorers.base import Column, Scorer
from gristmill.scorers.text import TextBatch

ROWS = 100_000
RUN = """
import sys
sys.path.insert(0, sys.argv[1])
import bench_reselect
bench_reselect.select(sys.argv[2], int(sys.argv[3]))
"""


@dataclass(frozen=True)
class Generated(Scorer):
    """Stands for a scorer whose side files are there."""

    name: ClassVar[str] = "generated"
    version: ClassVar[int] = 1
    number: int = 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """One number; the token count and the duplicate hash belong to two of them."""
        own = Column(
            name=f"score_{self.number}", type=pa.float64(), description="", unit="", higher_is_better=True
        )
        extra = {
            6: (Column(name="num_tokens", type=pa.int64(), description="", unit="tokens"),),
            7: (Column(name="exact_duplicate_hash", type=pa.uuid(), description="", unit=""),),
        }
        return (own, *extra.get(self.number, ()))

    def score(self, batch: TextBatch) -> pa.RecordBatch:
        """Never called: the side files are generated."""
        raise NotImplementedError


def scorers() -> list[Generated]:
    """Eight scorers with names of their own."""
    return [type(f"Generated{n}", (Generated,), {"name": f"generated_{n}"})(number=n) for n in range(8)]


def shards(num_rows: int) -> list[Shard]:
    """The shards of a generated corpus."""
    return [Shard(f"part-{n:05d}", ROWS, ROWS * 1000, f"content-{n}") for n in range(num_rows // ROWS)]


def generate(workspace: Workspace, num_rows: int) -> None:
    """Write the text-free documents and eight side files a shard."""
    random = np.random.default_rng(0)
    for number, shard in enumerate(shards(num_rows)):
        ids = uuid_array(random.integers(0, 2**63, (ROWS, 2), dtype=np.uint64))
        strings = pa.array([f"{shard.name}-{row}" for row in range(ROWS)])
        chars = pa.array(random.integers(100, 5000, ROWS))
        documents = {
            "doc_id": ids,
            "id": strings,
            "source": pa.array(np.array(["web", "books", "papers"])[random.integers(0, 3, ROWS)]),
            "num_chars": chars,
            "num_bytes": chars,
            "content_hash": ids,
            "blank": pa.array(np.zeros(ROWS, bool)),
            "repaired": pa.array(np.zeros(ROWS, bool)),
            "shard": pa.array([shard.name] * ROWS),
        }
        columns = [documents.get(f.name, pa.nulls(ROWS, f.type)) for f in schema.DOCUMENTS]
        footer = {"content": shard.content}
        write_side_file(workspace.documents(shard.name), pa.table(columns, schema=schema.DOCUMENTS), footer)
        twins = np.stack([np.full(ROWS, number), np.arange(ROWS) // 20 * 20], axis=1).astype(np.uint64)
        twins[np.arange(ROWS) % 20 > 1, 1] += (
            np.arange(ROWS)[np.arange(ROWS) % 20 > 1].astype(np.uint64) + 2**40
        )
        for scorer in scorers():
            values = {
                "num_tokens": pa.array(random.integers(20, 1200, ROWS)),
                "exact_duplicate_hash": uuid_array(twins),
            }
            scores = [values.get(c.name, pa.array(random.random(ROWS))) for c in scorer.columns]
            table = pa.table([ids, *scores], names=["doc_id", *(c.name for c in scorer.columns)])
            write_side_file(workspace.scores(scorer.name, scorer.fingerprint(), shard.name), table, footer)


def select(folder: str, num_rows: int) -> None:
    """Select once and print what it took."""
    import resource
    import time

    from gristmill.pipelines.recipe import Recipe
    from gristmill.pipelines.select_documents import BlockLists, select_documents
    from gristmill.pipelines.select_sql import compile_selection

    rules = {f"rule_{n}": f"score_{n} > 0.02" for n in range(7)}
    top = {"by": "score_7", "keep": "1/4", "of": "tokens"}
    selection = {
        "name": "bench",
        "where": rules,
        "deduplicate": {"prefer": ["books"], "then": "score_7"},
        "top": top,
    }
    recipe = Recipe.model_validate(
        {
            "workspace": folder,
            "corpus": [{"path": "-", "source": "-", "source_field": "-"}],
            "select": selection,
        }
    )
    compiled = compile_selection(recipe, recipe.select[0], scorers(), "select")
    started = time.perf_counter()
    funnel = select_documents(Workspace(folder), shards(num_rows), scorers(), compiled, BlockLists())
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    answer = {"seconds": seconds, "peak_megabytes": peak, "kept": [step.num_kept for step in funnel]}
    print(
        json.dumps(answer | {"tokens_over_budget": tokens_over_budget(Workspace(folder), shards(num_rows))})
    )


def tokens_over_budget(workspace: Workspace, chosen: list[Shard]) -> float:
    """Tokens kept, over a quarter of the tokens that reached the last step."""
    scorer = scorers()[6]
    kept = reached = 0
    for shard in chosen:
        decisions = pq.read_table(workspace.decisions("bench", shard.name), columns=["kept", "step"])
        path = workspace.scores(scorer.name, scorer.fingerprint(), shard.name)
        tokens = pq.read_table(path, columns=["num_tokens"])["num_tokens"].to_numpy()
        is_kept = decisions["kept"].to_numpy()
        kept += int(tokens[is_kept].sum())
        reached += int(
            tokens[is_kept | pc.fill_null(pc.equal(decisions["step"], "top"), False).to_numpy()].sum()
        )
    return kept / (reached / 4)


def main() -> None:
    """Print a line a size and the fitted exponent of time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--millions", type=float, nargs="+", default=[1, 5, 20])
    arguments = parser.parse_args()
    here = __file__.rpartition("/")[0]
    points = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(folder, create=True)
        generate(workspace, int(max(arguments.millions) * 1e6))
        for millions in arguments.millions:
            command = [sys.executable, "-c", RUN, here, folder, str(int(millions * 1e6))]
            answer = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            points.append((math.log(millions), math.log(answer["seconds"])))
            print(f"{millions:4.0f} million documents: {answer['seconds']:6.1f} s, ", end="")
            print(f"peak {answer['peak_megabytes']:,.0f} MB, kept after each step {answer['kept']}, ", end="")
            print(f"tokens over budget {answer['tokens_over_budget']:.7f}", flush=True)
    if len(points) > 1:
        exponent = np.polyfit(*zip(*points, strict=True), 1)[0]
        print(f"time grows as (number of documents)^{exponent:.2f}")


if __name__ == "__main__":
    main()
