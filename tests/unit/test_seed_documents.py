"""Which documents are seeds: of the most frequent hosts, by a hash of doc_id, and none that a model has seen."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mills import Row, build, divide, random_key

from gristmill.pipelines import seed_documents
from gristmill.pipelines.sample_texts import Sample
from gristmill.pipelines.score_documents import read_batches
from gristmill.pipelines.seed_documents import (
    PLAN,
    SEED,
    SeedRule,
    part_name,
    plan_seeds,
    take_rows,
    write_seeds,
)
from gristmill.pipelines.workspace import open_workspace


def rows():
    """Three hosts of falling frequency, a source without hosts, and blank documents."""
    made = []
    for number in range(120):
        host = ("big", "big", "big", "middle", "middle", "small")[number % 6]
        url = f"https://{host}.example/{number}"
        made.append(Row(number, f"document {number}" if number % 10 else " \n", url=url))
    return made + [Row(200 + number, f"paper {number}", "books") for number in range(30)]


ROWS = rows()


def group(row):
    return row.host or row.source


def expected(rule):
    """The seeds by a plain loop, in the order of the corpus."""
    full = [row for row in ROWS if row.text.strip()]
    frequency = Counter(group(row) for row in full)
    frequent = sorted(frequency, key=lambda name: (-frequency[name], name))[: rule.hosts]
    chosen = []
    for name in frequent:
        drawn = [row for row in full if group(row) == name]
        drawn = [
            row
            for row in drawn
            if not any(sample.low <= random_key(row, sample.seed) < sample.high for sample in rule.seen)
        ]
        chosen += sorted(drawn, key=lambda row: random_key(row, SEED + rule.seed))[: rule.documents_per_host]
    return [row for row in ROWS if row in chosen]


@pytest.fixture(scope="module")
def mills(tmp_path_factory):
    """The same documents in shards of two sizes."""
    root = tmp_path_factory.mktemp("mills")
    return [build(root / str(size), divide(ROWS, size), scorers=()) for size in (200, 40)]


@settings(max_examples=8, deadline=None)
@given(
    hosts=st.integers(1, 5),
    documents_per_host=st.integers(1, 40),
    seed=st.integers(0, 3),
    seen=st.lists(st.floats(0, 1), max_size=2),
)
def test_seeds_are_those_of_a_plain_loop_however_the_corpus_is_cut(
    mills, hosts, documents_per_host, seed, seen
):
    samples = tuple(Sample(number, 0.0, high) for number, high in enumerate(seen))
    rule = SeedRule(hosts, documents_per_host, seed, samples)
    wanted = [row.number for row in expected(rule)]
    for mill in mills:
        plan = plan_seeds(mill.workspace, mill.shards, rule)
        numbers = {
            shard.name: [row.number for row in of_shard]
            for shard, of_shard in zip(mill.shards, mill.rows, strict=True)
        }
        assert [numbers[row["shard"]][row["row"]] for row in plan.to_pylist()] == wanted


def test_seeds_are_copied_as_they_are(mills, tmp_path, monkeypatch):
    monkeypatch.setattr(seed_documents, "SHARD_BYTES", 100)
    rule = SeedRule(hosts=3, documents_per_host=10, seed=0)
    mill = mills[1]
    seeds = open_workspace(str(tmp_path / "seeds"), create=True)
    plan = plan_seeds(mill.workspace, mill.shards, rule)
    pa.parquet.write_table(plan, seeds.path(PLAN))
    parts = plan["part"].unique().to_pylist()
    assert len(parts) > 2, "the text of a part is bounded"
    found, described = [], []
    for part in parts:
        name = write_seeds(part, mill.workspace, seeds)
        assert name == part_name(part) == write_seeds(part, mill.workspace, seeds)
        found += [row for batch in read_batches(seeds, name) for row in batch.to_pylist()]
        described += pa.parquet.read_table(seeds.documents(name)).to_pylist()
    wanted = expected(rule)
    assert [row["doc_id"] for row in found] == [row.doc_id for row in wanted]
    assert [row["text"] for row in found] == [row.text for row in wanted]
    assert [row["doc_id"] for row in described] == [row.doc_id for row in wanted]
    assert [row["host"] for row in described] == [row.host for row in wanted]
    assert {row["shard"] for row in described} == {part_name(part) for part in parts}


@settings(deadline=None)
@given(lengths=st.lists(st.integers(0, 9), max_size=6), data=st.data())
def test_rows_of_a_shard_are_taken_across_its_batches(lengths, data):
    values = np.arange(sum(lengths))
    ends = np.cumsum(lengths)
    batches = [
        pa.record_batch([pa.array(values[end - length : end])], ["n"])
        for length, end in zip(lengths, ends, strict=True)
    ]
    wanted = sorted(data.draw(st.sets(st.sampled_from(values.tolist()))) if len(values) else [])
    found = [
        n for batch in take_rows(iter(batches), pa.array(wanted, pa.int64())) for n in batch["n"].to_pylist()
    ]
    assert found == wanted
