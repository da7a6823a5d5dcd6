"""Windows as what a budget chooses: against a plain reference, and in the dataset, its accounts and SQL."""

import tempfile
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain
from math import ceil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from mills import LOSSES, PLAIN, Losses, Row, batches, build, divide, publish

from gristmill.pipelines import write_dataset
from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.ledger import read_footer, read_ledger, write_side_file
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_export import Export
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.select_documents import BlockLists, select_documents
from gristmill.pipelines.select_sql import compile_selection
from gristmill.pipelines.takedowns import commit_takedowns
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.write_dataset import WINDOWS
from gristmill.scorers.base import RecipeError, SelectionError, WorkspaceError

FINE = settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))


TOP = {"by": "color_filter", "of": "tokens", "unit": "windows"}


def kept_windows(rows, keep, batch, sign):
    """doc_id -> numbers of its kept windows, as the recipe's documentation says it."""
    kept = {row.doc_id: [] for row in rows}
    for of_batch in batches(rows, batch):
        ranked = sorted(
            (sign * (float(conditional) - float(prior)), row.doc_id.int, number, num_tokens, row)
            for row in of_batch
            for number, (num_tokens, prior, conditional) in enumerate(LOSSES.losses(row.text))
        )
        total = sum(num_tokens for *_, num_tokens, _ in ranked)
        budget = ceil(keep * total) if isinstance(keep, Fraction) else keep
        reached = 0
        for _, _, number, num_tokens, row in ranked:
            if reached >= budget:
                break
            kept[row.doc_id].append(number)
            reached += num_tokens
    return {doc_id: sorted(numbers) for doc_id, numbers in kept.items()}


def decide(mill, **rules):
    funnel = select_documents(mill.workspace, mill.shards, mill.scorers, mill.compile(**rules), BlockLists())
    tables = [pq.read_table(mill.workspace.decisions("s", shard.name)) for shard in mill.shards]
    return funnel, list(chain.from_iterable(table.to_pylist() for table in tables))


texts = st.text(st.sampled_from("abcdefg é磨 "), max_size=14)
lists_of_rows = st.lists(texts, max_size=20).map(
    lambda found: [Row(number, text) for number, text in enumerate(found)]
)
shares = st.sampled_from([Fraction(0), Fraction(1), Fraction(1, 2), Fraction(1, 16)])
amounts = st.one_of(
    st.tuples(shares, st.sampled_from([None, 1, 3, 50])), st.tuples(st.integers(0, 40), st.none())
)


@given(
    rows=lists_of_rows, amount=amounts, direction=st.sampled_from([None, "lowest"]), size=st.integers(1, 20)
)
@example(rows=[Row(n, "abc" * 4) for n in range(6)], amount=(10, None), direction=None, size=4)
@example(rows=[Row(n, "abcbca") for n in range(9)], amount=(Fraction(1, 2), 3), direction="lowest", size=2)
@FINE
def test_windows_are_those_of_the_reference(rows, amount, direction, size):
    keep, batch = amount
    with tempfile.TemporaryDirectory() as folder:
        mill = build(f"{folder}/mill", divide(rows, size), (LOSSES,))
        top = TOP | {"keep": keep, "batch": batch, "direction": direction}
        funnel, found = decide(mill, where={"long": "num_chars > 1"}, top=top)
    arrived = [row for row in rows if row.text.strip() and len(row.text) > 1]
    expected = kept_windows(arrived, keep, batch, -1 if direction else 1)
    assert [row["doc_id"] for row in found] == [row.doc_id for row in rows]
    for row in found:
        windows = expected.get(row["doc_id"])
        assert row["kept"] == bool(windows)
        assert row["windows"] == (windows or None)
        if windows == []:
            assert (row["step"], row["reason"], row["survivor"]) == ("top", "top", None)
    assert (funnel[-1].step, funnel[-1].num_in) == ("top", len(arrived))
    assert funnel[-1].num_chars_kept == sum(len(row.text) for row in arrived if expected[row.doc_id])


ROWS = [
    Row(0, "gabéab磨b", "web", "a", "https://a.example/1", 2020),
    Row(1, "aaaaaa", "books", "b"),
    Row(2, "gagagaaaa", "web", "c", "https://a.example/2"),
    Row(3, "   "),
]


@pytest.fixture
def mill(tmp_path):
    return build(tmp_path / "mill", [ROWS[:2], ROWS[2:]], (LOSSES,))


def read(mill):
    paths = sorted(Path(mill.workspace.dataset("s")).glob("*.parquet"))
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def test_each_kept_window_is_a_row_of_the_dataset(mill):
    manifest = publish(mill, {"top": TOP | {"keep": 6}}, part_bytes=1)
    expected = kept_windows(ROWS[:3], 6, None, 1)
    assert list(expected.values()) == [[2], [], [1, 2]]
    rows = read(mill)
    assert [(row["id"], row["window"], row["text"]) for row in rows] == [
        ("a", 2, "磨b"),
        ("c", 1, "aga"),
        ("c", 2, "aaa"),
    ]
    assert [row["doc_id"] for row in rows] == [str(ROWS[number].doc_id) for number in (0, 2, 2)]
    assert [(row["source"], row["url"]) for row in rows[:2]] == [
        ("web", "https://a.example/1"),
        ("web", "https://a.example/2"),
    ]
    assert rows[0]["created"].year == 2020
    for file in manifest["files"]:
        assert pq.read_schema(mill.workspace.dataset("s", file["name"])).equals(WINDOWS)
    assert verify_workspace(mill.workspace).problems == []


def test_all_windows_of_a_document_are_its_text(mill):
    manifest = publish(mill, {"top": TOP | {"keep": Fraction(1)}})
    found = {}
    for row in read(mill):
        assert row["window"] == len(found.setdefault(row["doc_id"], []))
        found[row["doc_id"]].append(row["text"])
    assert {doc_id: "".join(parts) for doc_id, parts in found.items()} == {
        str(row.doc_id): row.text for row in ROWS[:3]
    }
    assert (manifest["num_documents"], manifest["num_windows"]) == (3, 8)


def test_accounts_are_of_documents_and_the_card_counts_windows(mill):
    manifest = publish(mill, {"top": TOP | {"keep": Fraction(1)}}, part_bytes=1)
    ledger = read_ledger(mill.workspace, "export:s")
    assert [(row.num_in, row.num_out, row.num_dropped) for row in ledger] == [(2, 2, 0), (1, 1, 0)]
    assert [file["num_documents"] for file in manifest["files"]] == [2, 1]
    card = Path(mill.workspace.dataset("s", "README.md")).read_text()
    assert (
        "8 windows of 3 of 4 documents, selected with gristmill. Each row is one window of a document: "
        in card
    )
    assert "The funnel counts whole documents and their characters." in card


def test_a_lost_window_stops_the_export(mill, monkeypatch):
    cut = write_dataset.cut_windows
    monkeypatch.setattr(write_dataset, "cut_windows", lambda *arguments: cut(*arguments)[1:])
    with pytest.raises(
        WorkspaceError, match="dataset 's': 8 windows are kept, but 6 were written; the export lost"
    ):
        publish(mill, {"top": TOP | {"keep": Fraction(1)}})


def test_redaction_sees_a_window_alone(tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Halves(Losses):
        def window_texts(self, text):
            return [text[:16], text[16:]]

    mill = build(tmp_path, [[Row(0, "To miller@example.com, to weir@example.com")]], (Halves(),))
    manifest = publish(mill, {"top": TOP | {"keep": Fraction(1)}}, Export(redact_pii=True, metadata=False))
    assert [row["text"] for row in read(mill)] == ["To miller@exampl", "e.com, to <EMAIL>"]
    assert manifest["edits"] == {"num_pii_redacted": 1}


def test_keep_rates_are_of_documents(mill):
    with pytest.raises(SelectionError, match=r"step 'top' keeps 66\.67% of 3 documents, expected between 90"):
        decide(mill, top=TOP | {"keep": 6}, keep_rates={"top": [0.9, 1.0]})


def test_takedowns_name_a_document_once(mill):
    publish(mill, {"top": TOP | {"keep": Fraction(1)}})
    (note,) = commit_takedowns(mill.workspace, BlockLists(hosts=frozenset({"a.example"})))
    assert note.startswith("dataset 's' holds 2 documents on a block list")
    found = pq.read_table(mill.workspace.path("takedowns", "s.parquet"))
    assert found["doc_id"].to_pylist() == [str(ROWS[0].doc_id), str(ROWS[2].doc_id)]


def test_sql_knows_the_windows(mill):
    manifest = publish(mill, {"top": TOP | {"keep": 9}})
    connection = open_catalog(mill.workspace)
    query = "SELECT count(*) AS n FROM (SELECT unnest(windows) FROM decisions WHERE selection = 's')"
    assert run_query(connection, query).to_pylist() == [{"n": manifest["num_windows"]}]
    connection.close()


def test_verify_finds_exchanged_windows(mill):
    publish(mill, {"top": TOP | {"keep": 6}})
    path = mill.workspace.decisions("s", mill.shards[0].name)
    table, footer = pq.read_table(path), read_footer(path)
    footer.pop("num_rows")
    other = pa.array([[1], None], table.schema.field("windows").type)
    assert table["windows"].to_pylist() != other.to_pylist()
    write_side_file(path, table.set_column(5, table.schema.field("windows"), other), footer)
    assert verify_workspace(mill.workspace).problems == [
        "decisions of 's': not those of the manifest; delete its folder and select again"
    ]


def test_another_choice_of_windows_is_another_dataset(mill):
    digests = set()
    for keep in (6, 7, 9):
        decide(mill, top=TOP | {"keep": keep})
        digests.add(mill.workspace.read_json("decisions", "s", "manifest.json")["kept"])
    assert len(digests) == 2  # 7 tokens end in the same window as 6


def refused(scorer=LOSSES, export=PLAIN, **top):
    recipe = Recipe(workspace="/w", corpus=[{"path": "/a.jsonl", "source": "web"}], export=export)
    selection = Selection(name="s", top={**TOP, "keep": "1/2", **top})
    with pytest.raises(RecipeError) as caught:
        compile_selection(recipe, selection, (scorer,), "select.0")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_windows_need_is_said_with_its_place():
    assert refused(by="nll_prior") == (
        "select.0.top.by: found 'nll_prior'; windows have scores of color_filter alone, expected that scorer"
    )
    for unit in ("documents", "characters"):
        assert refused(of=unit) == (
            f"select.0.top.of: found '{unit}'; windows are counted in tokens, expected `of: tokens`"
        )
    assert refused(replace(LOSSES, windows=False)) == (
        "select.0.top.unit: color_filter keeps no scores of windows; add `windows: true` to its options in `score`"
    )
    assert refused(replace(LOSSES, stride=2)) == (
        "select.0.top.unit: color_filter has a stride of 2; expected windows that do not overlap: leave `stride` out "
        "of its options in `score`"
    )
    assert refused(export=Export(clean_lines="c4")) == (
        "export.clean_lines: the borders of windows cut lines, and cleaning would drop them; leave it out, or choose "
        "whole documents (select.0.top.unit)"
    )


def test_a_batch_keeps_a_share():
    with pytest.raises(
        ValueError, match=r"batch\n.*each batch keeps a share of its own; found keep: 5, expected"
    ):
        Selection(name="s", top={"by": "quality", "keep": 5, "batch": 100})
