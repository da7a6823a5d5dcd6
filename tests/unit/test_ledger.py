"""The accounts: what does not add up stops the run; times come from tasks and earlier ledgers, numbers from footers."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.pipelines.ledger import (
    LedgerRow,
    check_conservation,
    commit_ledger,
    finished_tasks,
    read_footer,
    read_ledger,
    record_task,
    require_footer,
    write_side_file,
)
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers import schema
from gristmill.scorers.base import WorkspaceError

ROW = LedgerRow(
    "score:x:1", "part-0", num_in=10, num_out=7, num_dropped=2, num_rejected=1, reasons={"a": 2, "b": 1}
)


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(str(tmp_path / "mill"), create=True)


def test_accounts_that_add_up_pass():
    check_conservation([ROW, LedgerRow("s", "p", 0, 0)])


@pytest.mark.parametrize("change", [{"num_in": 11}, {"num_out": 8}, {"num_dropped": 3}, {"num_rejected": 0}])
def test_accounts_that_do_not_add_up_name_stage_shard_and_numbers(change):
    row = replace(ROW, **change)
    with pytest.raises(WorkspaceError) as caught:
        check_conservation([ROW, row])
    assert str(caught.value).startswith(
        f"score:x:1 of part-0: {row.num_in} rows in, but {row.num_out} out + {row.num_dropped} dropped + "
        f"{row.num_rejected} rejected = {row.num_out + row.num_dropped + row.num_rejected}; "
    )


def test_reasons_must_add_up_too():
    with pytest.raises(
        WorkspaceError, match=r"score:x:1 of part-0: reasons \{'a': 1\} do not add up to what was lost"
    ):
        check_conservation([replace(ROW, reasons={"a": 1})])


counts = st.integers(0, 5)


@given(counts, counts, counts, counts)
def test_exactly_the_balanced_accounts_pass(num_in, num_out, num_dropped, num_rejected):
    row = LedgerRow(
        "s", "p", num_in, num_out, num_dropped, num_rejected, reasons={"r": num_dropped + num_rejected}
    )
    if num_in == num_out + num_dropped + num_rejected:
        check_conservation([row])
    else:
        with pytest.raises(WorkspaceError, match="which is a bug"):
            check_conservation([row])


def test_a_ledger_that_does_not_add_up_is_not_written(workspace):
    record_task(workspace, ROW)
    with pytest.raises(WorkspaceError, match="which is a bug"):
        commit_ledger(workspace, ROW.stage, [replace(ROW, num_in=9)])
    assert read_ledger(workspace, ROW.stage) == []
    assert list(finished_tasks(workspace, ROW.stage, {})) == ["part-0"]


def test_ledger_takes_numbers_from_footers_and_seconds_from_tasks(workspace):
    record_task(workspace, replace(ROW, num_in=99, seconds=1.5))
    (written,) = commit_ledger(workspace, ROW.stage, [ROW])
    assert (written.num_in, written.seconds, written.peak_bytes > 10**7) == (10, 1.5, True)
    assert read_ledger(workspace, ROW.stage) == [written]
    assert pq.read_schema(workspace.path("ledger", "score-x-1.parquet")).equals(schema.LEDGER)
    assert finished_tasks(workspace, ROW.stage, {}) == {}


def test_seconds_survive_a_run_that_does_nothing(workspace):
    record_task(workspace, replace(ROW, seconds=1.5))
    first = commit_ledger(workspace, ROW.stage, [ROW])
    other = replace(ROW, shard="part-1")
    assert commit_ledger(workspace, ROW.stage, [ROW, other]) == [*first, other]


def test_tasks_are_read_once(workspace):
    record_task(workspace, ROW)
    seen = finished_tasks(workspace, ROW.stage, {})
    assert seen["part-0"].num_out == 7
    Path(workspace.path("ledger", "score-x-1", "part-0.json")).write_text("{broken")
    assert finished_tasks(workspace, ROW.stage, seen) == seen


def test_tasks_half_written_are_not_read(workspace):
    record_task(workspace, ROW)
    Path(workspace.path("ledger", "score-x-1", ".tmp-0123")).write_text("{half")
    assert list(finished_tasks(workspace, ROW.stage, {})) == ["part-0"]


def test_footer_holds_the_accounts_and_counts_the_rows(tmp_path):
    path = str(tmp_path / "side.parquet")
    assert read_footer(path) is None
    with pytest.raises(
        WorkspaceError, match=r"side.parquet: missing, though its stage is done; run the stage again"
    ):
        require_footer(path)
    write_side_file(path, pa.table({"a": [1, 2, 3]}), {"stage": "s", "reasons": {"ü": 1}})
    assert require_footer(path) == {"stage": "s", "reasons": {"ü": 1}, "num_rows": 3}
    first = Path(path).read_bytes()
    write_side_file(path, pa.table({"a": [1, 2, 3]}), {"reasons": {"ü": 1}, "stage": "s"})
    assert Path(path).read_bytes() == first


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", None, b"{}"])
def test_a_file_that_is_no_side_file_is_named(tmp_path, content):
    path = tmp_path / "side.parquet"
    if content is None:
        pq.write_table(pa.table({"a": [1]}), path)
    elif content == b"{}":
        with pq.ParquetWriter(path, pa.schema([("a", pa.int64())])) as writer:
            writer.add_key_value_metadata({b"gristmill": b"{no json"})
    else:
        path.write_bytes(content)
    with pytest.raises(
        WorkspaceError, match=r"side.parquet: damaged or not written by gristmill \(.*\); delete it"
    ) as caught:
        read_footer(str(path))
    assert "\n" not in str(caught.value)


def test_task_rows_are_json_of_the_row(workspace):
    record_task(workspace, replace(ROW, seconds=0.25))
    content = json.loads(Path(workspace.path("ledger", "score-x-1", "part-0.json")).read_text())
    assert LedgerRow(**content) == replace(ROW, seconds=0.25, peak_bytes=content["peak_bytes"])
