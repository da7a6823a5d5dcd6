"""A recipe with a target, from raw files to the top by CoLoR-Filter, from the command line."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from corpora import write_lines

from gristmill.pipelines.cli import main

MILL = "the miller grinds the corn and keeps a tenth of the flour for the mill by the river".split()
TRADE = "buy cheap watches now at the best price with free shipping and a discount for every customer".split()
RECIPE = """
workspace: mill
corpus: [{path: pool.jsonl, source: pool}]
target: {path: target.jsonl, source: mills}
models:
  tokenizer: {vocab_size: 300}
  prior: {size: 300k, context: 16, tokens: 4000, batch_tokens: 128, learning_rate: 3e-3}
  conditional: {batch_tokens: 128, epochs: 2}
score: [exact_duplicate, color_filter, embedding]
select:
  name: best
  top: {by: color_filter, keep: 1/8, of: tokens}
"""


def sentences(words, count, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(words, 12)) + f" {seed}.{n}" for n in range(count)]


@pytest.fixture
def recipe(tmp_path):
    records = [{"id": f"trade-{n}", "text": text} for n, text in enumerate(sentences(TRADE, 140, 0))]
    records += [{"id": f"mill-{n}", "text": text} for n, text in enumerate(sentences(MILL, 20, 1))]
    write_lines(tmp_path / "pool.jsonl", *records)
    write_lines(tmp_path / "target.jsonl", *sentences(MILL, 100, 2))
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return str(tmp_path / "recipe.yaml")


def call(*arguments):
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def content(folder):
    """Digests of all data files of a workspace, and when they were written."""
    kinds = ("*.safetensors", "part-*.parquet", "part-*.arrow", "train-*.parquet")
    paths = sorted(path for kind in kinds for path in Path(folder).rglob(kind))
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in paths
        if "ledger" not in path.parts
    }


def test_from_raw_files_to_the_top(recipe, tmp_path):
    call("run", recipe, "--quiet")
    mill = str(tmp_path / "mill")
    rows = json.loads(
        call(
            "sql", mill, "--format", "json",
            "select id, color_filter, num_tokens, kept from documents join score_color_filter using (doc_id) "
            "join decisions using (doc_id) order by color_filter desc",
        )
    )  # fmt: skip
    assert len(rows) == 160
    kept = [row["kept"] for row in rows]
    assert kept == sorted(kept, reverse=True), "the best by color_filter"
    total = sum(row["num_tokens"] for row in rows)
    num_kept = sum(row["num_tokens"] for row in rows if row["kept"])
    assert abs(num_kept - total / 8) <= max(row["num_tokens"] for row in rows)
    of_mills = [row["id"].startswith("mill") for row in rows if row["kept"]]
    assert np.mean(of_mills) > 0.8

    before = content(tmp_path / "mill")
    assert any("conditional" in path for path in before)
    call("run", recipe, "--quiet")
    call("train", recipe, "--quiet")
    assert content(tmp_path / "mill") == before

    changed = content(tmp_path / "mill")
    call("train", recipe, "prior", "--set", "models.prior.seed=1", "--quiet")
    after = content(tmp_path / "mill")
    differ = {path for path in after if after[path] != changed[path]}
    assert differ == {"models/prior/model.safetensors"}


def test_two_workers_score_as_one_does(recipe, tmp_path):
    call("run", recipe, "--quiet")
    scores = {path: found[0] for path, found in content(tmp_path / "mill").items() if "scores" in path}
    (tmp_path / "mill/scores").rename(tmp_path / "scores")
    call("score", recipe, "--quiet", "--direct_num_workers=2")
    again = {path: found[0] for path, found in content(tmp_path / "mill").items() if "scores" in path}
    assert len(again) == 3
    assert again == scores
