"""Whole selections against a plain reference in Python, on generated workspaces; then what selection promises."""

import shutil
import tempfile
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import chain
from math import ceil, inf, log1p
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mills import SOURCES, Numbers, Row, batches, build, divide, random_key, score

from gristmill.models.loss_weights import sampling_weights
from gristmill.pipelines import select_documents as module
from gristmill.pipelines.ledger import read_ledger, write_side_file
from gristmill.pipelines.recipe import Block
from gristmill.pipelines.select_documents import (
    QUOTA_SEED,
    BlockLists,
    read_block_lists,
    select_documents,
)
from gristmill.pipelines.thin_groups import whole_groups
from gristmill.scorers.base import SelectionError, WorkspaceError
from gristmill.scorers.duplicates import ExactDuplicate
from gristmill.scorers.simhash import SimHash
from gristmill.scorers.text import TextBatch

FINE = settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
NUMBERS = Numbers()
SCORERS = (NUMBERS, ExactDuplicate(), SimHash())


# The reference: one document after the other, rule after rule, as the recipe's documentation says it.


def column(row, name):
    """A stored value of a row by its name in SQL."""
    scores = dict(zip([column.name for column in NUMBERS.columns], NUMBERS.numbers(row.text), strict=True))
    return {"year": row.year, "num_chars": len(row.text), "host": row.host, "source": row.source, **scores}[
        name
    ]


WHERE = {
    "good": ("quality >= 1", lambda row: column(row, "quality") >= 1),
    "recent": ("year > 2015", lambda row: None if row.year is None else row.year > 2015),
    "even": (
        "topic = 'even' or source = 'books'",
        lambda row: column(row, "topic") == "even" or row.source == "books",
    ),
    "ratio": (
        "neutral / nullif(badness, 0) < 1",
        lambda row: (
            None if not column(row, "badness") else column(row, "neutral") / column(row, "badness") < 1
        ),
    ),
}
MISSING = {"recent": "missing:year", "ratio": "missing:ratio"}
BETTER = {"quality": "highest", "badness": "lowest"}


def normalized(row):
    return " ".join(row.text.lower().split())


def reference(rows, rules, block):
    """doc_id -> (kept, step, reason, survivor)."""
    verdicts = {}

    def drop(row, step, reason, survivor=None):
        verdicts[row.doc_id] = (False, step, reason, survivor)

    for row in rows:
        blocked = [
            name
            for name, entries in (
                ("host", block.hosts), ("url", block.urls), ("id", block.ids), ("doc_id", block.doc_ids)
            )
            if str(getattr(row, name)) in entries and getattr(row, name) is not None
        ]  # fmt: skip
        if not row.text.strip():
            drop(row, "empty", "empty")
            continue
        if blocked:
            drop(row, "block", f"blocked_{blocked[0]}")
            continue
        for name in rules.get("where", {}):
            passes = WHERE[name][1](row)
            if not passes:
                drop(row, name, MISSING[name] if passes is None else name)
                break
        else:
            for step in ("quota", "sample", "top"):
                rule = rules.get(step)
                concerned = rule and (step != "quota" or row.source in rule["keep"])
                by = concerned and rule.get("weights", rule).get("by")
                if by and column(row, by) is None:
                    drop(row, step, f"missing:{by}")
                    break
    alive = [row for row in rows if row.doc_id not in verdicts]
    if rule := rules.get("thin"):
        exemplars = {}
        for row in sorted(alive, key=lambda row: preference(row, rule)):
            group = exemplars.setdefault(column(row, rule["within"]), [])
            near = [other for other in group if distance(row, other) <= rule["max_distance"]]
            if near:
                drop(row, "thin", "thin", near[0].doc_id)
            elif column(row, rule["within"]) is not None and simhash(row.text)[1]:
                group.append(row)
        alive = [row for row in alive if row.doc_id not in verdicts]
    if "deduplicate" in rules:
        clusters = {}
        for row in alive:
            clusters.setdefault(normalized(row), []).append(row)
        for members in clusters.values():
            survivor = min(members, key=lambda row: preference(row, rules["deduplicate"]))
            for row in members:
                if row is not survivor:
                    drop(row, "duplicate", "duplicate", survivor.doc_id)
    for step in ("quota", "sample", "top"):
        if rule := rules.get(step):
            for source, amount in rule["keep"].items() if step == "quota" else [(None, rule["keep"])]:
                alive = [row for row in rows if row.doc_id not in verdicts and source in (None, row.source)]
                for batch in batches(alive, rule.get("batch")):
                    for row in beyond(batch, step, rule, amount):
                        drop(row, step, step)
    return {row.doc_id: verdicts.get(row.doc_id, (True, None, None, None)) for row in rows}


@cache
def simhash(text):
    """The hash of a text and its number of shingles."""
    scores = SimHash().score(TextBatch.from_texts([text]))
    return scores["simhash"][0].as_py(), scores["simhash_num_shingles"][0].as_py()


def distance(row, other):
    return (simhash(row.text)[0] ^ simhash(other.text)[0]).bit_count() if simhash(row.text)[1] else inf


def preference(row, rule):
    prefer = rule.get("prefer", [])
    rank = prefer.index(row.source) if row.source in prefer else len(prefer)
    return rank, turned(row, rule["then"], rule.get("direction")) if rule.get("then") else 0, row.doc_id.int


def turned(row, by, direction):
    value = column(row, by)
    return inf if value is None else -value if (direction or BETTER[by]) == "highest" else value


def drawn(row, alive, weights, seed):
    """An exponential number over the weight of a row's loss among those of all rows."""
    losses = [float(column(other, weights["by"])) for other in alive]
    relative = sampling_weights(np.array(losses), weights["function"], weights["temperature"])
    return -log1p(-random_key(row, seed)) / relative[alive.index(row)]


def beyond(alive, step, rule, amount):
    seeds = {"quota": QUOTA_SEED, "sample": rule.get("seed", 0)}
    weight = {"documents": lambda row: 1}.get(
        rule.get("of", "documents"),
        lambda row: column(row, {"characters": "num_chars", "tokens": "num_tokens"}[rule["of"]]),
    )

    def key(row):
        if "weights" in rule:
            return drawn(row, alive, rule["weights"], rule["seed"]), row.doc_id.int
        if rule.get("by"):
            return turned(row, rule["by"], rule.get("direction")), row.doc_id.int
        return random_key(row, seeds[step]), row.doc_id.int

    if amount == Fraction(1) and isinstance(amount, Fraction):
        return []
    total = sum(map(weight, alive))
    budget = ceil(amount * total) if isinstance(amount, Fraction) else amount
    ordered, reached = sorted(alive, key=key), 0
    if total < budget:
        return []
    for position, row in enumerate(ordered):
        if reached >= budget:
            return ordered[position:]
        reached += weight(row)
    return []


# What is generated.

numbers = st.integers(-2, 3).map(str)
bodies = st.sampled_from(["the mill", "The Mill", "THE  MILL", "the\nmill", "grain", "x" * 30])
texts = st.one_of(
    st.sampled_from(["", " \n\t"]),
    st.builds(
        "{} {} {} {}\n{}".format,
        st.sampled_from("012"),
        st.sampled_from("01"),
        numbers,
        st.integers(0, 4),
        bodies,
    ),
)
urls = st.sampled_from([None, "https://a.example/1", "https://b.example/2", "http://A.example/3"])
bare_rows = st.builds(
    Row,
    st.just(0),
    texts,
    st.sampled_from(SOURCES),
    st.sampled_from([None, "id1", "id2"]),
    urls,
    st.sampled_from([None, 2010, 2020]),
)
lists_of_rows = st.lists(bare_rows, max_size=40).map(
    lambda rows: [replace(row, number=number) for number, row in enumerate(rows)]
)
units = st.sampled_from(["documents", "characters", "tokens"])
amounts = st.one_of(st.integers(0, 30), st.sampled_from([0, 1, Fraction(1), Fraction(1, 2), Fraction(1, 16)]))
shares = st.sampled_from([Fraction(0), Fraction(1), Fraction(1, 2), Fraction(1, 16), Fraction(1, 10**40)])
directed = st.one_of(
    st.fixed_dictionaries({"by": st.sampled_from(["quality", "badness"])}),
    st.fixed_dictionaries(
        {
            "by": st.sampled_from(["quality", "badness", "neutral", "year", "num_chars"]),
            "direction": st.sampled_from(["highest", "lowest"]),
        }
    ),
)
orders = st.permutations(SOURCES).flatmap(
    lambda order: st.integers(0, 3).map(lambda count: list(order[:count]))
)
preferences = st.builds(
    lambda prefer, then: {"prefer": prefer, **({"then": then.pop("by")} | then if then else {})},
    orders,
    st.one_of(st.none(), directed.map(dict)),
)
rules = st.fixed_dictionaries(
    {},
    optional={
        "where": st.lists(st.sampled_from(list(WHERE)), unique=True).map(
            lambda names: {name: WHERE[name][0] for name in names}
        ),
        "thin": st.builds(
            lambda within, max_distance, preferred: {
                "within": within,
                "max_distance": max_distance,
                **preferred,
            },
            st.sampled_from(["source", "host", "year", "topic"]),
            st.sampled_from([0, 20, 28, 32, 64]),
            preferences,
        ),
        "deduplicate": preferences,
        "quota": st.builds(
            lambda keep, of, by: {"keep": keep, "of": of, **by},
            st.dictionaries(st.sampled_from(SOURCES), amounts, min_size=1),
            units,
            st.one_of(st.just({}), directed),
        ),
        "sample": st.fixed_dictionaries(
            {"keep": amounts, "of": units, "seed": st.integers(0, 3)},
            optional={
                "weights": st.fixed_dictionaries(
                    {
                        "by": st.sampled_from(["quality", "year", "num_chars"]),
                        "function": st.sampled_from(["lin_upper", "quadratic", "extremes"]),
                        "temperature": st.sampled_from([0.1, 1.0]),
                    }
                )
            },
        ),
        "top": st.one_of(
            st.builds(lambda keep, of, by: {"keep": keep, "of": of, **by}, amounts, units, directed),
            st.builds(
                lambda keep, of, by, batch: {"keep": keep, "of": of, "batch": batch, **by},
                shares,
                units,
                directed,
                st.sampled_from([1, 3, 10, 50]),
            ),
        ),
    },
)
blocks = st.builds(
    BlockLists,
    hosts=st.sampled_from([frozenset(), frozenset({"a.example"})]),
    urls=st.sampled_from([frozenset(), frozenset({"https://b.example/2", "https://a.example/1"})]),
    ids=st.sampled_from([frozenset(), frozenset({"id1", "None"})]),
    doc_ids=st.sets(st.integers(0, 40), max_size=2).map(
        lambda numbers: frozenset(str(Row(number, "").doc_id) for number in numbers)
    ),
)
EXAMPLE = [
    Row(
        number,
        f"{number % 3} {number % 2} 0 {number}\nbody {number % 4}",
        SOURCES[number % 3],
        year=2000 + number,
    )
    for number in range(12)
]


def read_decisions(mill, name="s"):
    tables = [pq.read_table(mill.workspace.decisions(name, shard.name)) for shard in mill.shards]
    return {
        shard.name: [
            (row["doc_id"], (row["kept"], row["step"], row["reason"], row["survivor"]))
            for row in table.to_pylist()
        ]
        for shard, table in zip(mill.shards, tables, strict=True)
    }


NO_BLOCKS = BlockLists()


def decide(mill, rules, block=NO_BLOCKS):
    return select_documents(mill.workspace, mill.shards, mill.scorers, mill.compile(**rules), block)


@given(rows=lists_of_rows, rules=rules, block=blocks, size=st.integers(1, 40))
@example(rows=EXAMPLE, rules={"top": {"by": "quality", "keep": 1}}, block=BlockLists(), size=5)
@example(
    rows=EXAMPLE,
    rules={"top": {"by": "quality", "keep": Fraction(1, 2), "of": "tokens", "batch": 3}},
    block=BlockLists(),
    size=5,
)
@example(
    rows=EXAMPLE,
    rules={
        "quota": {"keep": {"web": 1, "books": Fraction(1)}},
        "sample": {"keep": 1, "of": "documents", "seed": 0},
    },
    block=BlockLists(),
    size=12,
)
@example(
    rows=EXAMPLE,
    rules={
        "sample": {
            "keep": Fraction(1, 2),
            "of": "tokens",
            "seed": 0,
            "weights": {"by": "year", "function": "lin_upper", "temperature": 0.1},
        },
        "top": {"by": "quality", "keep": 3},
    },
    block=BlockLists(),
    size=5,
)
@FINE
def test_decisions_are_those_of_the_reference(rows, rules, block, size):
    with tempfile.TemporaryDirectory() as folder:
        mill = build(f"{folder}/mill", divide(rows, size), SCORERS)
        funnel = decide(mill, rules, block)
        expected = reference(rows, rules, block)
        found = read_decisions(mill)
        for shard, rows_of_shard in zip(mill.shards, mill.rows, strict=True):
            assert found[shard.name] == [(row.doc_id, expected[row.doc_id]) for row in rows_of_shard]
        _check_accounts(mill, rows, funnel, expected)


def _check_accounts(mill, rows, funnel, expected):
    dropped = {}
    for row in rows:
        _, step, _, _ = expected[row.doc_id]
        count, chars = dropped.get(step, (0, 0))
        dropped[step] = (count + 1, chars + len(row.text))
    num_in, num_chars = len(rows), sum(len(row.text) for row in rows)
    for step in funnel:
        count, chars = dropped.pop(step.step, (0, 0))
        assert (step.num_in, step.num_chars_in) == (num_in, num_chars)
        assert (step.num_kept, step.num_chars_kept) == (num_in - count, num_chars - chars)
        num_in, num_chars = step.num_kept, step.num_chars_kept
    assert dropped in ({}, {None: (num_in, num_chars)})
    for entry, rows_of_shard in zip(read_ledger(mill.workspace, "select:s"), mill.rows, strict=True):
        assert entry.num_in == len(rows_of_shard)
        assert entry.num_out == sum(expected[row.doc_id][0] for row in rows_of_shard)


@given(
    rows=lists_of_rows, rules=rules, sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)), data=st.data()
)
@settings(FINE, max_examples=6)
def test_division_and_order_of_shards_change_nothing(rows, rules, sizes, data):
    with tempfile.TemporaryDirectory() as folder:
        first = build(f"{folder}/first", divide(rows, sizes[0]), SCORERS)
        second = build(f"{folder}/second", divide(data.draw(st.permutations(rows)), sizes[1]), SCORERS)
        funnels = [decide(first, rules), decide(second, rules)]
        assert funnels[0] == funnels[1]
        decisions = [dict(chain.from_iterable(read_decisions(mill).values())) for mill in (first, second)]
        assert decisions[0] == decisions[1]


def test_each_batch_keeps_a_share_of_its_own(tmp_path):
    rows = [Row(number, f"{number % 50} 0 0 1\n{number}") for number in range(2000)]
    mill = build(tmp_path, divide(rows, 300), (NUMBERS,))
    decide(mill, {"top": {"by": "quality", "keep": "1/16", "batch": 100}})
    kept = {doc_id: verdict[0] for doc_id, verdict in chain.from_iterable(read_decisions(mill).values())}
    found = batches(rows, 100)
    assert len(found) == 20
    assert 60 < min(map(len, found)) < max(map(len, found)) < 140
    for batch in found:
        assert sum(kept[row.doc_id] for row in batch) == ceil(len(batch) / 16)
        assert min(row.number % 50 for row in batch if kept[row.doc_id]) >= 40


def test_a_cluster_survives_when_its_preferred_member_fails_a_rule(tmp_path):
    rows = [Row(0, "0 0 0 0\nsame", "books"), Row(1, "0 0 0 0\nSAME", "web"), Row(2, "0 0 0 0\nSame", "code")]
    mill = build(tmp_path, [rows])
    decide(mill, {"where": {"shouting": "quality > 0"}, "deduplicate": {"prefer": ["books", "code", "web"]}})
    (found,) = read_decisions(mill).values()
    assert [verdict for _, verdict in found] == [
        (False, "shouting", "shouting", None),
        (False, "duplicate", "duplicate", rows[2].doc_id),
        (True, None, None, None),
    ]


def test_a_group_is_thinned_to_exemplars_and_duplicates_are_chosen_among_them(tmp_path):
    """The copy on another host survives although its cluster's preferred member was thinned."""
    body = "the miller grinds the corn that the farmers bring and keeps a tenth of the flour for himself"
    line, near, far = f"3 0 0 0\n{body}", f"1 0 0 0\n{body} too", "0 0 0 0\nthe weir of the upper mill"
    rows = [
        Row(0, near, "books", url="https://a.example/0"),
        Row(1, line, "web", url="https://a.example/1"),
        Row(2, far, "web", url="https://a.example/2"),
        Row(3, line, "code"),
        Row(4, near, "web", url="https://b.example/4"),
        Row(5, "...", url="https://a.example/5"),
        Row(6, ". .", url="https://a.example/6"),
    ]
    mill = build(tmp_path, divide(rows, 2), SCORERS)
    bits = distance(rows[0], rows[1])
    assert 0 < bits < distance(rows[1], rows[2])
    thin = {"within": "host", "then": "quality", "max_distance": bits}
    funnel = decide(mill, {"thin": thin, "deduplicate": {"prefer": ["books", "web", "code"]}})
    assert [step.step for step in funnel] == ["empty", "block", "thin", "duplicate"]
    assert [verdict for _, verdict in chain.from_iterable(read_decisions(mill).values())] == [
        (False, "thin", "thin", rows[1].doc_id),
        (True, None, None, None),
        (True, None, None, None),
        (False, "duplicate", "duplicate", rows[1].doc_id),
        (True, None, None, None),
        (True, None, None, None),
        (True, None, None, None),
    ]
    decide(mill, {"thin": thin | {"max_distance": bits - 1}})
    assert all(kept for _, (kept, *_) in chain.from_iterable(read_decisions(mill).values()))


@given(st.lists(st.integers(1, 5), max_size=8), st.integers(1, 6))
@FINE
def test_groups_stay_whole_however_they_arrive(sizes, batch_rows):
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    column = pa.array([group.to_bytes(16, "big") for group in groups], pa.uuid())
    table = pa.table({"group_hash": column, "number": groups})
    found = [part["number"].to_pylist() for part in whole_groups(table.to_batches(max_chunksize=batch_rows))]
    assert [number for part in found for number in part] == groups
    whole = [set(part) for part in found if part]
    assert sum(map(len, whole)) == len(sizes)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return build(tmp_path_factory.mktemp("scored") / "mill", divide(EXAMPLE, 5))


@pytest.fixture
def mill(scored, tmp_path):
    copy = str(tmp_path / "mill")
    shutil.copytree(scored.workspace.root, copy)
    return replace(scored, workspace=type(scored.workspace)(copy))


def stamps(mill, kind):
    return {
        path: path.stat().st_mtime_ns for path in sorted(_root(mill).glob(f"{kind}/**/*")) if path.is_file()
    }


def _root(mill):
    return Path(mill.workspace.root)


def test_unchanged_selection_is_not_made_again(mill):
    first = decide(mill, {"where": {"good": "quality >= 1"}})
    before = stamps(mill, "decisions") | stamps(mill, "scores")
    assert decide(mill, {"where": {"good": "quality >= 1"}}) == first
    assert stamps(mill, "decisions") | stamps(mill, "scores") == before


@pytest.mark.parametrize(
    ("rules", "block"),
    [
        ({"where": {"good": "quality >= 2"}}, BlockLists()),
        ({"where": {"better": "quality >= 1"}}, BlockLists()),
        ({"where": {"good": "quality >= 1"}, "sample": {"keep": "1/2", "seed": 1}}, BlockLists()),
        ({"where": {"good": "quality >= 1"}}, BlockLists(ids=frozenset({"x"}))),
    ],
)
def test_changed_selection_is_made_again_without_scoring(mill, rules, block):
    decide(mill, {"where": {"good": "quality >= 1"}})
    decisions, scores = stamps(mill, "decisions"), stamps(mill, "scores")
    decide(mill, rules, block)
    assert all(stamp != decisions[path] for path, stamp in stamps(mill, "decisions").items())
    assert stamps(mill, "scores") == scores


def test_another_fingerprint_makes_the_selection_again(mill):
    decide(mill, {"where": {"good": "quality >= 1"}})
    shifted = replace(mill, scorers=(Numbers(shift=5.0), ExactDuplicate()))
    score(shifted)
    funnel = decide(shifted, {"where": {"good": "quality >= 1"}})
    assert funnel[-1].num_kept == len(EXAMPLE)


def test_killed_selection_leaves_no_mixture(mill, monkeypatch):
    """Old decisions may not pass for whole when the writing of new ones was cut short."""
    decide(mill, {"where": {"good": "quality >= 1"}})
    expected = read_decisions(mill)
    write = module._write_decisions

    def die_late(connection, workspace, name, number, *arguments):
        if number == 2:
            raise KeyboardInterrupt
        return write(connection, workspace, name, number, *arguments)

    monkeypatch.setattr(module, "_write_decisions", die_late)
    with pytest.raises(KeyboardInterrupt):
        decide(mill, {"where": {"good": "quality >= 2"}})
    monkeypatch.undo()
    decide(mill, {"where": {"good": "quality >= 1"}})
    assert read_decisions(mill) == expected


def test_deleted_decisions_are_made_again(mill):
    decide(mill, {})
    expected = read_decisions(mill)
    (_root(mill) / "decisions/s/part-00000-00001-0000.parquet").unlink()
    decide(mill, {})
    assert read_decisions(mill) == expected


def test_keep_rate_outside_its_bounds_stops_the_run_each_time(mill):
    rules = {"where": {"good": "quality >= 1"}, "keep_rates": {"good": (0.9, 1.0)}}
    for _ in range(2):
        with pytest.raises(
            SelectionError, match=r"step 'good' keeps 66\.67% of 12 documents, expected between 90"
        ):
            decide(mill, rules)
    assert sum(kept for rows in read_decisions(mill).values() for _, (kept, *_) in rows) == 8
    decide(mill, rules | {"keep_rates": {"good": (0.5, 0.7)}})


def test_missing_scores_name_shard_scorer_and_cure(mill):
    path = mill.workspace.scores("numbers", NUMBERS.fingerprint(), mill.shards[1].name)
    shutil.move(path, path + ".away")
    with pytest.raises(
        SelectionError, match="part-00000-00001-0000 has no scores of numbers; run `gristmill score`"
    ):
        decide(mill, {"where": {"good": "quality >= 1"}})
    assert decide(mill, {"where": {"long": "num_chars > 1"}})[-1].num_kept == 12


def test_scores_of_other_content_are_refused(mill):
    stale = replace(mill, shards=[*mill.shards[:2], replace(mill.shards[2], content="0" * 32)])
    with pytest.raises(SelectionError, match="part-00000-00002-0000 has no scores of numbers"):
        decide(stale, {"where": {"good": "quality >= 1"}})


def test_scores_of_other_documents_are_refused(mill):
    path = mill.workspace.scores("numbers", NUMBERS.fingerprint(), mill.shards[0].name)
    footer = {"content": mill.shards[0].content}
    write_side_file(path, pq.read_table(path).take([1, 0, 2, 3, 4]), footer)
    with pytest.raises(
        SelectionError, match=r"its doc_ids are not those of part-00000-00000-0000; delete it"
    ):
        decide(mill, {"where": {"good": "quality >= 1"}})
    Path(path).write_bytes(Path(path).read_bytes()[:-9])
    with pytest.raises(
        WorkspaceError, match=r"part-00000-00000-0000.parquet: damaged or not written by gristmill"
    ):
        decide(mill, {"where": {"good": "quality >= 1"}})


def test_an_expression_that_fails_on_a_document_is_one_line(mill):
    with pytest.raises(
        SelectionError, match=r"selection 's' on part-00000-00000-0000: .*cast.*'odd'|'even'"
    ) as caught:
        decide(mill, {"where": {"number": "topic::INTEGER > 1"}})
    assert "\n" not in str(caught.value)


def test_block_lists_are_read_without_comments_and_case(tmp_path):
    (tmp_path / "hosts").write_text("# hosts\nA.Example \n\n  b.example\n")
    (tmp_path / "more").write_text("b.example\nc.example")
    (tmp_path / "ids").write_text("Id1\n#id2\n")
    (tmp_path / "doc_ids").write_text("00000000-0000-0000-0000-00000000ABCD\r\n")
    lists = read_block_lists(
        Block(
            hosts=[str(tmp_path / "hosts"), str(tmp_path / "more")],
            ids=[str(tmp_path / "ids")],
            doc_ids=[str(tmp_path / "doc_ids")],
        )
    )
    assert lists == BlockLists(
        hosts=frozenset({"a.example", "b.example", "c.example"}),
        ids=frozenset({"Id1"}),
        doc_ids=frozenset({"00000000-0000-0000-0000-00000000abcd"}),
    )


def test_quota_and_sample_of_one_workspace_choose_independently(tmp_path):
    mill = build(
        tmp_path, [[Row(number, f"0 0 0 1\n{number}") for number in range(2000)]], scorers=(Numbers(),)
    )
    decide(mill, {"name": "s", "quota": {"keep": {"web": "1/2"}}, "sample": {"keep": "1/2"}})
    kept = sum(verdict[0] for _, verdict in read_decisions(mill)["part-00000-00000-0000"])
    assert kept == 500
    decide(mill, {"name": "q", "quota": {"keep": {"web": "1/2"}}})
    decide(mill, {"name": "t", "sample": {"keep": "1/2"}})
    chosen = [
        {doc_id for doc_id, verdict in read_decisions(mill, name)["part-00000-00000-0000"] if verdict[0]}
        for name in "qt"
    ]
    assert 400 < len(chosen[0] & chosen[1]) < 600
