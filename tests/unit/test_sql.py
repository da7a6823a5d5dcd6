"""The SQL over a workspace: every block runs, every grain holds, the sums agree, nothing but reading is possible."""

import io
import json
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from dataclasses import asdict
from math import isfinite
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mills import SOURCES, Numbers, Row, build, publish

from gristmill import sql
from gristmill.pipelines import answers
from gristmill.pipelines.ablation_report import Result
from gristmill.pipelines.catalog import named_query, open_catalog, run_query
from gristmill.pipelines.ledger import LedgerRow, commit_ledger
from gristmill.pipelines.mixture_report import Observation, result_path
from gristmill.pipelines.mixture_report import Result as Mixed
from gristmill.pipelines.model_files import LOG_FILE, PROXIES_FILE, STRENGTHS_FILE
from gristmill.pipelines.questions import Accuracy
from gristmill.pipelines.records import Reject, rejects_table
from gristmill.pipelines.select_documents import BlockLists
from gristmill.pipelines.takedowns import commit_takedowns
from gristmill.pipelines.train_meta_rater import write_proxies
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers import schema
from gristmill.scorers.base import QueryError, WorkspaceError
from gristmill.scorers.duplicates import ExactDuplicate
from gristmill.scorers.language import Language
from gristmill.scorers.minhash import MinHash
from gristmill.scorers.pii import Pii
from gristmill.scorers.rules import Rules

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "views.sql"
ROWS = [
    Row(
        number,
        f"{number % 3} {number % 2} {number % 5} {number}\nBody {number % 4}" if number % 9 else " ",
        SOURCES[number % 3],
        id=str(number % 6),
        url=None if number % 4 == 0 else f"https://h{number % 2}.example/{number}",
        year=2000 + number % 2 if number % 5 else None,
    )
    for number in range(40)
] + [Row(100 + number, "1 0 0 4\nthe same", SOURCES[number % 2]) for number in range(5)]
RULES = {
    "where": {"good": "quality >= 1"},
    "deduplicate": {"prefer": ["books"]},
    "top": {"by": "quality", "keep": "1/2"},
}
BUILT_IN = (Rules(), Language(), ExactDuplicate(), Pii())

GRAIN = {
    "documents": ["doc_id"],
    "rejects": ["path", "location"],
    "ledger": ["stage", "shard"],
    "decisions": ["selection", "doc_id"],
    "takedowns": ["selection", "doc_id"],
    "duplicates": ["doc_id"],
    "duplicate_report": ["num_members"],
    "duplicate_buckets": ["first_band", "size"],
    "datasets": ["selection"],
    "runs": ["run"],
    "models": ["scorer", "fingerprint", "option"],
    "training": ["model", "step"],
    "rungs": ["position"],
    "strengths": ["doc_id"],
    "rung_losses": ["doc_id", "position"],
    "meta_rater_weights": ["signal"],
    "proxies": ["proxy", "domain"],
    "ablations": ["selection", "seed", "multiple"],
    "ablation_tasks": ["selection", "seed", "multiple", "task"],
    "mixtures": ["ratio", "num_tokens"],
    "score_columns": ["column_name"],
    "scores": ["doc_id"],
    "texts": ["doc_id"],
    "score_numbers": ["doc_id"],
    "score_exact_duplicate": ["doc_id"],
    "score_minhash": ["doc_id"],
}
QUERY_GRAIN = {
    "funnel": ["selection", "step"],
    "drop_reasons": ["selection", "step", "reason"],
    "keep_rate_by_source": ["selection", "source", "year"],
    "threshold_sweep": ["threshold", "source", "year"],
    "score_summary": ["source"],
    "score_agreement": ["source"],
    "joint_report": ["source", "year", "first_quarter", "second_quarter"],
    "strength_by_source": ["source"],
    "strength_by_host": ["host"],
    "dropped_from_host": ["selection", "doc_id"],
    "largest_clusters": ["cluster_id"],
    "cluster_sizes": ["size"],
    "source_overlap": ["source", "representative_source"],
    "closest_calls": ["doc_id"],
    "near_pairs": ["doc_id", "other_doc"],
    "layout_recall": ["jaccard"],
    "simhash_pairs": ["doc_id", "other_doc"],
    "contributions": ["signal"],
    "representatives": ["doc_id"],
    "duplicate_ids": ["source", "id"],
    "reject_reasons": ["reason"],
    "costs": ["stage"],
}
ELSEWHERE = {"contributions", "representatives"}
"""Queries of scores that this workspace has not; their rows are tested where those scores are."""
NULLABLE = {"year", "host"}
"""A document without a date has no year, one without a URL no host; their group is one row like the others."""
STRENGTHS = [
    {"host": "a.example", "strength": 1.0, "bits_per_character": [3.0, 2.5, 2.0], "label": "positive"},
    {"host": "a.example", "strength": 1 / 3, "bits_per_character": [2.0, 2.0, 1.5], "label": None},
    {"host": None, "strength": 0.0, "bits_per_character": [2.0, 2.0, 2.0], "label": "negative"},
    {"host": None, "strength": None, "bits_per_character": [2.0, None, 1.0], "label": None},
]
RUNGS = [
    {"rung": f"rung {number}", "average": None, "task_loss": 3.0 - number, "bits_per_character": 2.0}
    for number in range(3)
]
ARGUMENTS = {
    "score": "quality",
    "first": "quality",
    "second": "badness",
    "hash": "num_tokens",
    "host": "h1.example",
    "num_bands": "18",
    "rows_per_band": "6",
    "threshold": "0.8",
    "doc_id": "00000000-0000-0000-0000-000000000000",
}
REPORT = {"num_clusters": 2, "num_near_duplicates": 5, "largest_cluster": 4, "num_parted": 1}


@pytest.fixture(scope="module")
def mill(tmp_path_factory):
    """A small workspace with everything that the nouns show."""
    root = tmp_path_factory.mktemp("sql") / "mill"
    mill = build(root, [ROWS[:11], [], ROWS[11:30], ROWS[30:]], (Numbers(), ExactDuplicate(), MinHash()))
    publish(mill, RULES)
    publish(mill, {"name": "all"})
    commit_takedowns(mill.workspace, BlockLists(ids=frozenset({"1"})))
    mill.workspace.commit_json(
        {**REPORT, "num_oversized_buckets": 2, "largest_bucket": 90}, "duplicates", "manifest.json"
    )
    buckets = {"first_band": pa.array([0, 9], pa.int32()), "size": [90, 70]}
    pq.write_table(pa.table(buckets), mill.workspace.path("duplicates", "buckets.parquet"))
    for model in ("prior", "conditional"):
        steps = [
            {
                "model": model,
                "step": step,
                "num_tokens": 8 * step,
                "loss": 2 / step,
                "learning_rate": 0.1,
                "seconds": 1.0,
            }
            for step in (1, 2)
        ]
        folder = Path(mill.workspace.path("models", model))
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(steps, schema.TRAINING), folder / LOG_FILE)
    write_strengths(mill)
    write_proxies_of(mill)
    for selection, multiple in (("random", 1), ("random", 2), ("s", 1)):
        tasks = {name: Accuracy(10, 0.5, 0.16, 0.25) for name in ("piqa", "sciq")}
        result = Result(selection, 0, multiple, 100 * multiple, 0.5, 2.0, 1.5, tasks, 3.0)
        mill.workspace.commit_json({**asdict(result), "identity": ""}, *result.path)
    for ratio in ("1/8", "1/2"):
        observed = tuple(Observation(tokens, 4.0, 3.0, 0.01) for tokens in (0, 1000))
        mixed = Mixed("s", ratio, 1.0, 0.5, 9.0, observed)
        mill.workspace.commit_json({**asdict(mixed), "identity": ""}, *result_path(ratio))
    rejects = [Reject("/a.jsonl", str(place), f"not_json: {place}", b"{\xff\n") for place in (3, 90)]
    rejects.append(Reject("/b.jsonl", "0", "empty_file: no record in it", b""))
    path = Path(mill.workspace.rejects(mill.shards[0].name))
    path.parent.mkdir()
    pq.write_table(rejects_table(rejects), path)
    for number in range(2):
        run = {
            "run": f"r{number}",
            "started": "2024-05-06T07:08:09Z",
            "command": "run",
            "message": "",
            "seconds": 1.5,
        }
        mill.workspace.commit_json({**run, "status": "finished", "version": "1"}, "runs", f"r{number}.json")
    return mill


def write_strengths(mill):
    """Predictive strength of four documents, as the training of its classifier leaves it."""
    rows = [
        {"doc_id": row.doc_id.bytes, "source": "web", "num_chars": 10, "held_out": False, **strength}
        for row, strength in zip(ROWS, STRENGTHS, strict=False)
    ]
    folder = Path(mill.workspace.path("models", "predictive_strength"))
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema.STRENGTHS), folder / STRENGTHS_FILE)
    mill.workspace.commit_json({"rungs": RUNGS}, "models", "predictive_strength", "manifest.json")


def write_proxies_of(mill):
    """Two proxies and the weights that they found, as the training of `meta_rater` leaves them."""
    losses = [{"a.example": 1.0, "b.example": 2.0}, {"a.example": 3.0, "b.example": 1.0}]
    folder = Path(mill.workspace.path("models", "meta_rater"))
    folder.mkdir(parents=True)
    write_proxies(folder / PROXIES_FILE, np.array([[0.25, 0.75], [0.5, 0.5]]), losses, 1)
    signals = [["quality", 0.25, True], ["badness", 0.75, False]]
    mill.workspace.commit_json({"signals": signals}, "models", "meta_rater", "manifest.json")


@pytest.fixture(scope="module")
def full(mill):
    connection = open_catalog(mill.workspace)
    yield connection
    connection.close()


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    connection = open_catalog(open_workspace(str(tmp_path_factory.mktemp("empty") / "mill"), create=True))
    yield connection
    connection.close()


def ask(connection, text):
    return run_query(connection, text).to_pylist()


def one(connection, text):
    ((value,),) = (row.values() for row in ask(connection, text))
    return value


def named(connection, name):
    query = sql.queries()[name]
    arguments = {parameter: ARGUMENTS[parameter] for parameter in query.parameters}
    return run_query(connection, named_query(connection, name, arguments))


# Every block runs, and its rows are what its description says.


@pytest.mark.parametrize("name", [*sql.views(), "scores", "texts"])
def test_every_noun_is_there_in_an_empty_workspace(empty, full, name):
    found = run_query(empty, f"SELECT * FROM {name}")
    assert found.num_rows == 0
    if name not in ("scores", "models"):
        assert found.column_names == run_query(full, f"SELECT * FROM {name}").column_names


@pytest.mark.parametrize(
    "name", [name for name, query in sql.queries().items() if "column" not in query.parameters.values()]
)
def test_every_query_runs_in_an_empty_workspace(empty, full, name):
    found = named(empty, name)
    assert found.num_rows == 0 or name == "layout_recall"
    assert found.column_names == named(full, name).column_names


def test_every_noun_and_query_states_its_grain():
    assert set(sql.views()) | {
        "scores",
        "texts",
        "score_numbers",
        "score_exact_duplicate",
        "score_minhash",
    } == set(GRAIN)
    assert set(sql.queries()) == set(QUERY_GRAIN)
    for block in [*sql.views().values(), *sql.queries().values()]:
        assert block.description.startswith("One row per "), block.name
    assert set(ARGUMENTS) == {parameter for query in sql.queries().values() for parameter in query.parameters}


def check_key(rows, key):
    keys = [tuple(row[column] for column in key) for row in rows]
    assert len(set(keys)) == len(keys)
    assert all(
        value is not None
        for row in keys
        for column, value in zip(key, row, strict=True)
        if column not in NULLABLE
    )


@pytest.mark.parametrize(("name", "key"), GRAIN.items())
def test_key_of_every_noun_is_unique_and_not_null(full, name, key):
    rows = ask(full, f"SELECT * FROM {name}")
    assert rows or name == "models"
    check_key(rows, key)


@pytest.mark.parametrize(("name", "key"), [item for item in QUERY_GRAIN.items() if item[0] not in ELSEWHERE])
def test_key_of_every_query_is_unique_and_not_null(full, name, key):
    rows = named(full, name).to_pylist()
    assert rows
    check_key(rows, key)


def test_stable_columns_are_there(full):
    for noun, columns in {
        "documents": "doc_id, id, source, url, host, year, num_chars, num_bytes, shard",
        "duplicates": "doc_id, cluster_id, representative, matched_doc, estimated_jaccard, jaccard",
        "decisions": "selection, doc_id, kept, step, reason",
        "ledger": "stage, shard, num_in, num_out, num_dropped, num_rejected, num_bytes, seconds",
        "rejects": "path, location, reason, head",
    }.items():
        run_query(full, f"SELECT {columns} FROM {noun}")


# What the nouns say agrees with what was put in, and with each other.


def test_documents_and_scores_are_those_of_the_corpus(full):
    rows = ask(
        full, "SELECT doc_id::VARCHAR AS doc_id, * EXCLUDE doc_id FROM documents JOIN scores USING (doc_id)"
    )
    found = {row["doc_id"]: row for row in rows}
    assert set(found) == {str(row.doc_id) for row in ROWS}
    for row in ROWS:
        noun = found[str(row.doc_id)]
        quality, badness, _, num_tokens, topic = Numbers().numbers(row.text)
        assert (noun["source"], noun["id"], noun["url"], noun["host"], noun["year"]) == (
            row.source, row.id, row.url, row.host, row.year,
        )  # fmt: skip
        assert (noun["quality"], noun["badness"], noun["num_tokens"], noun["topic"]) == (
            quality,
            badness,
            num_tokens,
            topic,
        )
        assert (noun["num_chars"], noun["blank"]) == (len(row.text), not row.text.strip())


def test_texts_are_those_of_the_corpus(full):
    found = ask(
        full, "SELECT t.doc_id::VARCHAR AS doc_id, text, t.source FROM texts t JOIN documents USING (doc_id)"
    )
    assert {row["doc_id"]: row["text"] for row in found} == {str(row.doc_id): row.text for row in ROWS}


def test_kept_and_dropped_are_all_documents(full):
    rows = ask(
        full,
        "SELECT selection, count(*) AS n, count(*) FILTER (WHERE kept AND step IS NULL AND reason IS NULL) AS kept, "
        "count(*) FILTER (WHERE NOT kept AND step IS NOT NULL AND reason IS NOT NULL) AS dropped "
        "FROM decisions GROUP BY 1",
    )
    assert sorted(row["selection"] for row in rows) == ["all", "s"]
    for row in rows:
        assert row["kept"] + row["dropped"] == row["n"] == len(ROWS)


def test_funnel_adds_up(full):
    funnel = named(full, "funnel").to_pylist()
    reasons = {(row["selection"], row["step"]): 0 for row in funnel}
    for row in named(full, "drop_reasons").to_pylist():
        reasons[row["selection"], row["step"]] += row["num_documents"]
    for selection in ("all", "s"):
        steps = [row for row in funnel if row["selection"] == selection]
        assert steps[0]["num_in"] == len(ROWS)
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            assert step["num_in"] - step["num_kept"] == reasons[selection, step["step"]]
            assert following is None or (following["num_in"], following["num_chars_in"]) == (
                step["num_kept"], step["num_chars_kept"],
            )  # fmt: skip
        kept = one(full, f"SELECT count(*) FROM decisions WHERE kept AND selection = '{selection}'")
        published = one(full, f"SELECT num_documents FROM datasets WHERE selection = '{selection}'")
        assert steps[-1]["num_kept"] == kept == published
    assert [row["step"] for row in funnel if row["selection"] == "s"] == [
        "empty",
        "block",
        "good",
        "duplicate",
        "top",
    ]


def test_ledger_adds_up(full):
    assert one(full, "SELECT count(*) FROM ledger WHERE num_in <> num_out + num_dropped + num_rejected") == 0
    stages = {row["stage"]: row for row in named(full, "costs").to_pylist()}
    assert stages["ingest"]["num_out"] == stages["select:s"]["num_in"] == len(ROWS)
    assert stages["select:s"]["num_out"] == stages["export:s"]["num_in"]


def test_keep_rates_are_those_of_the_decisions(full):
    rows = named(full, "keep_rate_by_source").to_pylist()
    assert sum(row["num_documents"] for row in rows if row["selection"] == "s") == len(ROWS)
    kept = sum(round(row["keep_rate"] * row["num_documents"]) for row in rows if row["selection"] == "s")
    assert kept == one(full, "SELECT count(*) FROM decisions WHERE kept AND selection = 's'")


def test_duplicates_name_every_member_of_every_cluster(full):
    """But not the blank ones: they are no duplicates of one another, and a step of their own drops them."""
    clusters = {}
    for row in ROWS:
        if not row.text.strip():
            continue
        clusters.setdefault(" ".join(row.text.lower().split()), []).append(str(row.doc_id))
    expected = {
        member: min(members) for members in clusters.values() if len(members) > 1 for member in members
    }
    rows = ask(
        full,
        "SELECT doc_id::VARCHAR AS d, representative::VARCHAR AS r, matched_doc::VARCHAR AS m FROM duplicates",
    )
    assert {row["d"]: row["r"] for row in rows} == expected
    assert all(row["m"] == row["r"] for row in rows)
    near = one(full, "SELECT count(*) FROM duplicates WHERE representative <> doc_id")
    assert near == len(expected) - len(set(expected.values()))


def test_the_report_of_near_duplicates_is_that_of_the_manifest(full):
    assert ask(full, "SELECT * FROM duplicate_report") == [
        {
            "num_members": 7, "num_clusters": 2, "largest_cluster": 4, "num_parted": 1, "num_oversized_buckets": 2,
            "largest_bucket": 90,
        }
    ]  # fmt: skip
    assert ask(full, "SELECT * FROM duplicate_buckets ORDER BY size") == [
        {"first_band": 9, "size": 70}, {"first_band": 0, "size": 90}
    ]  # fmt: skip


def test_survivors_are_kept_or_dropped_by_a_later_step(full):
    rows = ask(
        full,
        "SELECT d.doc_id, s.kept, s.step FROM decisions d JOIN decisions s ON s.doc_id = d.survivor "
        "AND s.selection = d.selection WHERE d.step = 'duplicate'",
    )
    assert len(rows) == one(full, "SELECT count(*) FROM decisions WHERE step = 'duplicate'") > 0
    assert {(row["kept"], row["step"]) for row in rows} <= {(True, None), (False, "top")}


def test_threshold_sweep_counts_what_a_threshold_would_keep(full):
    (threshold,) = {
        row["threshold"] for row in named(full, "threshold_sweep").to_pylist() if row["threshold"] == 1.0
    }
    rows = [row for row in named(full, "threshold_sweep").to_pylist() if row["threshold"] == threshold]
    assert sum(row["num_documents"] for row in rows) == len(ROWS)
    kept = sum(round(row["keep_rate_at_least"] * row["num_documents"]) for row in rows)
    assert kept == sum(Numbers().numbers(row.text)[0] >= threshold for row in ROWS)
    assert all(
        row["keep_rate_at_least"] + row["keep_rate_below"] == pytest.approx(1, abs=1e-3) for row in rows
    )


def quarters(values):
    """The quarter of each value by the mean rank of its equals, None where it is no finite number."""
    finite = sorted(value for value in values if isfinite(value))
    below = [bisect_left(finite, value) / max(len(finite) - 1, 1) for value in values]
    reached = [bisect_right(finite, value) / len(finite) for value in values]
    return [
        min(1 + int(2 * (low + high)), 4) if isfinite(value) else None
        for value, low, high in zip(values, below, reached, strict=True)
    ]


def test_quarters_of_two_scores_stand_side_by_side(full):
    numbers = [Numbers().numbers(row.text) for row in ROWS]
    first, second = (quarters([row[place] for row in numbers]) for place in (0, 1))
    expected = {}
    for row, *cell in zip(ROWS, first, second, strict=True):
        found = expected.setdefault((row.source, row.year, *cell), [0, 0])
        found[0] += 1
        found[1] += len(row.text)
    rows = named(full, "joint_report").to_pylist()
    columns = ("source", "year", "first_quarter", "second_quarter")
    found = {tuple(row[name] for name in columns): [row["num_documents"], row["num_chars"]] for row in rows}
    assert found == expected
    of_group = Counter(row.source for row in ROWS if row.year is None)
    for row in rows:
        if row["year"] is None:
            assert row["share"] == pytest.approx(row["num_documents"] / of_group[row["source"]], abs=1e-4)
    high = [row for row in rows if (row["source"], row["year"], row["first_quarter"]) == ("web", None, 1)]
    assert sum(row["share_of_first_quarter"] for row in high) == pytest.approx(1, abs=1e-3)
    assert len(high) > 1


def test_what_has_no_finite_score_has_no_quarter(tmp_path):
    scorers = (Numbers(shift=float("nan")), ExactDuplicate())
    mill = build(tmp_path / "mill", [ROWS[:12]], scorers)
    with open_catalog(mill.workspace) as connection:
        rows = named(connection, "joint_report").to_pylist()
    assert {row["first_quarter"] for row in rows} == {None}
    assert sum(row["num_documents"] for row in rows) == 12
    assert len({row["second_quarter"] for row in rows}) > 1


def test_every_score_column_is_traced_to_its_maker(full):
    described = ask(full, "SELECT column_name, scorer, version, fingerprint, options FROM score_columns")
    shown = {row["column_name"] for row in ask(full, "DESCRIBE scores")}
    columns = shown - {"doc_id"} | {"minhash_signature"}
    assert {row["column_name"] for row in described} == columns
    assert {row["fingerprint"] for row in described} == {
        Numbers().fingerprint(),
        ExactDuplicate().fingerprint(),
        MinHash().fingerprint(),
    }
    assert {row["options"] for row in described if row["scorer"] == "numbers"} == {'{"shift": 0.0}'}


def test_takedowns_join_the_documents(full):
    rows = ask(
        full,
        "SELECT selection, count(*) AS n FROM takedowns t JOIN documents d ON d.doc_id = t.doc_id::UUID GROUP BY 1",
    )
    assert {row["selection"]: row["n"] for row in rows}["all"] == sum(
        row.id == "1" and bool(row.text.strip()) for row in ROWS
    )


def test_shards_ingested_after_a_selection_have_no_decision_yet(tmp_path):
    mill = build(tmp_path / "mill", [ROWS[:10]])
    publish(mill, RULES)
    build(tmp_path / "mill", [ROWS[:10], ROWS[10:20]], scorers=())
    with open_catalog(mill.workspace) as connection:
        assert one(connection, "SELECT count(*) FROM documents") == 20
        assert one(connection, "SELECT count(*) FROM decisions") == 10
        assert one(connection, "SELECT count(*) FROM scores") == 20
        assert one(connection, "SELECT count(*) FROM scores WHERE quality IS NULL") == 10


# The definitions, written down: run with GRISTMILL_GOLDEN=write to write them anew, then look at the difference.


def test_view_definitions_are_as_written_down(tmp_path):
    mill = build(tmp_path / "mill", [ROWS[:1]], scorers=BUILT_IN)
    publish(mill, {"name": "s"})
    with open_catalog(mill.workspace) as connection:
        found = connection.execute(
            "SELECT view_name, sql FROM duckdb_views() WHERE NOT internal AND NOT temporary ORDER BY view_name"
        ).fetchall()
    text = "".join(f"{definition}\n" for _, definition in found)
    for value, name in {mill.workspace.root: "WORKSPACE"}.items():
        text = text.replace(value, name)
    for scorer in BUILT_IN:
        text = text.replace(scorer.fingerprint(), "FINGERPRINT")
    if os.environ.get("GRISTMILL_GOLDEN") == "write":
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


# Reading and nothing else.


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("COPY (SELECT 1) TO 'x.csv'", "COPY"),
        ("INSERT INTO documents VALUES (1)", "INSERT"),
        ("CREATE TABLE t AS SELECT 1", "CREATE"),
        ("DROP VIEW documents", "DROP"),
        ("ATTACH 'x.db'", "ATTACH"),
        ("SET threads = 1", "SET"),
        ("INSTALL httpfs", "LOAD"),
        ("PRAGMA version", "PRAGMA"),
        ("EXPORT DATABASE 'x'", "EXPORT"),
        ("BEGIN", "TRANSACTION"),
        ("SELECT 1; SELECT 2", "SELECT, SELECT"),
        ("SELECT 1; DROP VIEW documents", "SELECT, DROP"),
        ("  -- nothing\n", "nothing"),
    ],
)
def test_all_but_one_select_is_refused(full, text, found):
    with pytest.raises(QueryError) as caught:
        run_query(full, text)
    assert str(caught.value) == f"expected one SELECT; found {found}. The workspace is read-only in SQL"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd.parquet'",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SELECT * FROM glob('/*')",
        "SELECT * FROM parquet_metadata('/etc/hosts')",
        "SELECT * FROM query('SELECT * FROM read_text(''/etc/passwd'')')",
    ],
)
def test_no_other_file_can_be_read(full, text):
    with pytest.raises(QueryError, match="Permission Error: Cannot access file"):
        run_query(full, text)


def test_questions_that_describe_are_answered(full):
    assert "doc_id" in [row["column_name"] for row in ask(full, "DESCRIBE documents")]
    assert run_query(full, "EXPLAIN SELECT * FROM documents").num_rows
    assert one(full, "WITH x AS (SELECT 2 AS y) SELECT y FROM x") == 2


def test_unknown_noun_gets_a_list_of_nouns(full):
    with pytest.raises(
        QueryError, match=r"Table with name document does not exist.*; nouns: documents, .*, scores, texts"
    ) as caught:
        run_query(full, "SELECT * FROM document")
    assert "\n" not in str(caught.value)


def test_absent_workspace_is_not_made(tmp_path):
    from gristmill.pipelines.workspace import Workspace

    with pytest.raises(WorkspaceError, match="no workspace here"):
        open_catalog(Workspace(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


# Parameters of named queries.


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("funel", {}, "no query 'funel'; allowed: .*; did you mean 'funnel'"),
        ("funnel", {"score": "quality"}, "query 'funnel' takes parameters none; found score"),
        ("threshold_sweep", {}, "query 'threshold_sweep' takes parameters score; found none"),
        (
            "threshold_sweep",
            {"score": "qualty"},
            "score: no score column 'qualty'; allowed: .*; did you mean 'quality'",
        ),
        ("threshold_sweep", {"score": 'quality" --'}, "score: no score column"),
        ("score_agreement", {"first": "quality"}, "takes parameters first, second; found first"),
    ],
)
def test_wrong_parameters_are_refused(full, name, arguments, message):
    with pytest.raises(QueryError, match=message):
        named_query(full, name, arguments)


def test_text_parameters_are_quoted(full):
    text = named_query(full, "dropped_from_host", {"host": "x' OR 'a' = 'a {host}"})
    assert "host = 'x'' OR ''a'' = ''a {host}'" in text
    assert run_query(full, text).num_rows == 0


def test_score_that_is_no_number_is_one_line(full):
    with pytest.raises(
        QueryError, match=r"^Binder Error: Cannot compare values of type VARCHAR and type DOUBLE"
    ) as caught:
        run_query(full, named_query(full, "threshold_sweep", {"score": "topic"}))
    assert "\n" not in str(caught.value)


# Answers.

EVERYTHING = """
SELECT 1 AS x, 2 AS x, 'a"b,c' || chr(10) || chr(9) || 'd' AS text, NULL AS nothing, true AS yes,
    1.50::DECIMAL(4, 2) AS price, 0.1 + 0.2::DOUBLE AS float, sum(5) AS total,
    170141183460469231731687303715884105727::HUGEINT AS huge, [1, 2] AS list, {'k': 'v'} AS struct,
    '\\xFFz'::BLOB AS raw, '00000000-0000-0000-0000-00000000000a'::UUID AS doc_id, DATE '2024-02-29' AS day
"""


def written(full, form, text=EVERYTHING):
    sink = io.BytesIO()
    answers._write(run_query(full, text), form, sink)
    return sink.getvalue()


def test_answer_as_csv(full):
    assert written(full, "csv").decode() == (
        '"x","x_1","text","nothing","yes","price","float","total","huge","list","struct","raw","doc_id","day"\n'
        '1,2,"a""b,c\n\td",,true,1.50,0.30000000000000004,5,170141183460469231731687303715884105727,"[1,2]","{""k"":""v""}",'
        '"\\xffz","00000000-0000-0000-0000-00000000000a",2024-02-29\n'
    )


def test_answer_as_json(full):
    assert json.loads(written(full, "json")) == [
        {
            "x": 1, "x_1": 2, "text": 'a"b,c\n\td', "nothing": None, "yes": True, "price": 1.5, "float": 0.1 + 0.2,
            "total": 5,
            "huge": "170141183460469231731687303715884105727", "list": [1, 2], "struct": {"k": "v"}, "raw": "\\xffz",
            "doc_id": "00000000-0000-0000-0000-00000000000a", "day": "2024-02-29",
        }
    ]  # fmt: skip
    assert written(full, "json", "SELECT 1 AS a WHERE false") == b"[]\n"


def test_answer_as_parquet(full):
    table = pq.read_table(io.BytesIO(written(full, "parquet")))
    assert table.equals(run_query(full, EVERYTHING))
    interval = pq.read_table(io.BytesIO(written(full, "parquet", "SELECT INTERVAL 1 DAY AS i")))
    assert interval.schema.field("i").type == pa.string()


def test_answer_as_table(full):
    assert written(full, "table").decode() == (
        "x\tx_1\ttext\tnothing\tyes\tprice\tfloat\ttotal\thuge\tlist\tstruct\traw\tdoc_id\tday\n"
        '1\t2\ta"b,c\\n\\td\t\ttrue\t1.50\t0.3\t5\t170141183460469231731687303715884105727\t[1,2]\t{"k":"v"}\t\\xffz\t'
        "00000000-0000-0000-0000-00000000000a\t2024-02-29\n"
    )


def test_answer_is_written_whole_or_not_at_all(full, tmp_path):
    answers.write_answer(run_query(full, "SELECT 1 AS a"), "csv", str(tmp_path / "deep" / "a.csv"))
    assert (tmp_path / "deep" / "a.csv").read_bytes() == b'"a"\n1\n'
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["a.csv"]


@pytest.mark.parametrize("form", ["csv", "json", "parquet", "table"])
@pytest.mark.parametrize("noun", [*sql.views(), "scores", "texts"])
def test_every_noun_can_be_written_in_every_form(full, empty, noun, form):
    for connection in (full, empty):
        assert written(connection, form, f"SELECT * FROM {noun}")


# The loader.


def test_blocks_hold_what_their_comments_declare():
    query = sql.queries()["score_agreement"]
    assert query.parameters == {"first": "column", "second": "column"}
    assert query.description == "One row per source: Pearson's and Spearman's correlation of two scores."
    assert not query.text.endswith(";")
    for block in sql.queries().values():
        assert all(f"{{{parameter}}}" in block.text for parameter in block.parameters)


def test_macros_and_rule_sets_agree():
    with duckdb.connect() as connection:
        sql.install_macros(connection)
        names = {
            row[0]
            for row in connection.execute(
                "SELECT function_name FROM duckdb_functions() WHERE NOT internal"
            ).fetchall()
        }
    assert {"gopher_quality_passes", "gopher_repetition_passes", "c4_passes", "fineweb_passes"} <= names
    assert set(sql.rule_sets()) == {
        "gopher_quality_pass", "gopher_repetition_pass", "gopher_pass", "c4_pass", "c4_jmlr_pass", "fineweb_pass",
        "dclm_pass",
    }  # fmt: skip


def test_a_ledger_that_is_read_back_is_the_one_written(mill):
    rows = [LedgerRow("test", "a", 3, 1, 1, 1, 9, 0.5, 7, {"x": 1, "y": 1}), LedgerRow("test", "b", 0, 0)]
    assert commit_ledger(mill.workspace, "test", rows) == rows


def test_strength_by_source_and_host(full):
    assert named(full, "strength_by_source").to_pylist() == [
        {
            "source": "web",
            "num_documents": 4,
            "strength": 0.4444,
            "share_at_1": 0.3333,
            "share_at_0": 0.3333,
            "num_without_strength": 1,
        }
    ]
    by_host = {row["host"]: row["strength"] for row in named(full, "strength_by_host").to_pylist()}
    assert by_host == {"a.example": 0.6667, None: 0.0}


def test_losses_stand_beside_their_rungs(full):
    found = ask(
        full,
        "SELECT rung, bits_per_character AS bits FROM rung_losses JOIN strengths USING (doc_id) "
        "WHERE label = 'positive' ORDER BY position",
    )
    assert [(row["rung"], row["bits"]) for row in found] == [
        ("rung 0", 3.0),
        ("rung 1", 2.5),
        ("rung 2", 2.0),
    ]
    assert one(full, "SELECT count(*) FROM rung_losses WHERE bits_per_character IS NULL") == 1


def test_proxies_say_what_each_domain_lost_under_which_weights(full):
    found = ask(
        full, "SELECT proxy, round, domain, loss, objective, weights FROM proxies ORDER BY proxy, domain"
    )
    assert [tuple(row.values()) for row in found] == [
        (0, 1, "a.example", 1.0, 1.5, [0.25, 0.75]),
        (0, 1, "b.example", 2.0, 1.5, [0.25, 0.75]),
        (1, 2, "a.example", 3.0, 2.0, [0.5, 0.5]),
        (1, 2, "b.example", 1.0, 2.0, [0.5, 0.5]),
    ]
