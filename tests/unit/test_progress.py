"""Progress is counted from committed tasks; rates, time left, JSON lines, silence."""

import io
import json
import time

import pytest
from rich.console import Console

from gristmill.pipelines import progress
from gristmill.pipelines.ledger import LedgerRow, record_task
from gristmill.pipelines.progress import (
    JsonReporter,
    QuietReporter,
    TerminalReporter,
    describe_rates,
    watched,
)
from gristmill.pipelines.workspace import open_workspace


def lines(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_hold_rates_and_time_left():
    stream = io.StringIO()
    reporter = JsonReporter(stream, interval_s=0.0)
    reporter.start("score", 1000)
    reporter.update(10, 250, 2.0)
    reporter.note("careful")
    reporter.finish(40, 1000, 5.0)
    start, update, note, finish = lines(stream)
    assert all(
        time.strptime(line.pop("time"), "%Y-%m-%dT%H:%M:%SZ") for line in (start, update, note, finish)
    )
    assert start == {"stage": "score", "event": "start", "num_bytes_expected": 1000}
    assert update == {
        "stage": "score", "event": "progress", "num_documents": 10, "num_bytes": 250, "seconds": 2.0,
        "documents_per_s": 5.0, "bytes_per_s": 125, "seconds_left": 6.0,
    }  # fmt: skip
    assert note == {"stage": "score", "event": "note", "message": "careful"}
    assert finish == {
        "stage": "score", "event": "finish", "num_documents": 40, "num_bytes": 1000, "seconds": 5.0,
        "documents_per_s": 8.0, "bytes_per_s": 200, "seconds_left": None,
    }  # fmt: skip


def test_json_lines_are_rare():
    stream = io.StringIO()
    reporter = JsonReporter(stream, interval_s=60.0)
    reporter.start("score", 1000)
    for number in range(100):
        reporter.update(number, number, 1.0)
    reporter.finish(100, 100, 1.0)
    assert [line["event"] for line in lines(stream)] == ["start", "finish"]


def test_rates_know_no_division_by_zero():
    stream = io.StringIO()
    reporter = JsonReporter(stream, interval_s=0.0)
    reporter.start("score", 0)
    reporter.update(0, 0, 0.0)
    reporter.finish(5, 0, 0.0)
    assert [line.get("seconds_left") for line in lines(stream)] == [None] * 3
    assert describe_rates(5, 10, 0.0) == "5 documents"
    assert describe_rates(5000, 3_000_000, 2.0) == "5,000 documents  2,500/s  1.5 MB/s"


def test_quiet_says_nothing(capsys):
    reporter = QuietReporter()
    reporter.start("score", 1)
    reporter.update(1, 1, 1.0)
    reporter.note("x")
    reporter.finish(1, 1, 1.0)
    assert capsys.readouterr() == ("", "")


def test_terminal_draws_a_bar_a_stage():
    stream = io.StringIO()
    reporter = TerminalReporter(Console(file=stream, force_terminal=True, width=120))
    for stage in ("ingest", "score"):
        reporter.start(stage, 100)
        reporter.update(5, 50, 1.0)
        reporter.finish(10, 100, 2.0)
    reporter.note("ids are shared")
    text = stream.getvalue()
    assert "ingest" in text
    assert "score" in text
    assert "100%" in text
    assert "10 documents  5/s" in text
    assert text.endswith("ids are shared\n")


class Recorder(QuietReporter):
    def __init__(self):
        self.calls = []

    def start(self, stage, num_bytes):
        self.calls.append(("start", stage, num_bytes))

    def update(self, num_documents, num_bytes, seconds):
        self.calls.append(("update", num_documents, num_bytes))

    def finish(self, num_documents, num_bytes, seconds):
        assert seconds > 0
        self.calls.append(("finish", num_documents, num_bytes))


@pytest.fixture
def workspace(tmp_path):
    return open_workspace(str(tmp_path / "mill"), create=True)


def test_progress_is_what_tasks_have_committed(workspace, monkeypatch):
    monkeypatch.setattr(progress, "POLL_S", 0.01)
    recorder = Recorder()
    with watched(recorder, workspace, "score", ["score:a:1", "score:b:1"], 100):
        for number, stage in enumerate(["score:a:1", "score:b:1", "score:a:1"]):
            record_task(workspace, LedgerRow(stage, f"part-{number}", 10, 10, num_bytes=30))
        deadline = time.monotonic() + 5
        while ("update", 30, 90) not in recorder.calls and time.monotonic() < deadline:
            time.sleep(0.01)
    assert recorder.calls[0] == ("start", "score", 100)
    assert ("update", 30, 90) in recorder.calls
    assert recorder.calls[-1] == ("finish", 30, 90)


def test_a_failed_stage_still_ends_its_bar(workspace):
    recorder = Recorder()
    with pytest.raises(ValueError, match="broken"), watched(recorder, workspace, "score", ["s"], 100):
        raise ValueError("broken")
    assert recorder.calls == [("start", "score", 100), ("finish", 0, 0)]


def test_a_slow_listing_does_not_fill_the_time(workspace, monkeypatch):
    calls = []

    def slow(*arguments):
        calls.append(time.monotonic())
        time.sleep(0.02)
        return {}

    monkeypatch.setattr(progress, "POLL_S", 0.001)
    monkeypatch.setattr(progress, "finished_tasks", slow)
    with watched(Recorder(), workspace, "score", ["s"], 1):
        time.sleep(0.6)
    assert len(calls) <= 4
