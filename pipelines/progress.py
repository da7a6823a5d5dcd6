"""Progress of a stage, counted from committed work, so that every runner shows the same bar."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gristmill.pipelines.ledger import LedgerRow, finished_tasks
from gristmill.pipelines.workspace import Workspace

POLL_S = 0.5
WORK = ("documents", "bytes")
TRAINING = ("steps", "tokens")


class Reporter(Protocol):
    """Where progress goes."""

    def start(self, stage: str, num_bytes: int) -> None:
        """A stage begins; `num_bytes` is its expected work, about."""

    def start_training(self, model: str, num_tokens: int) -> None:
        """The training of a model begins; its work is counted in tokens, and steps stand for documents."""

    def update(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """What the stage has done so far."""

    def finish(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """The stage is over."""

    def note(self, message: str) -> None:
        """Something worth knowing."""


class QuietReporter:
    """Says nothing."""

    def start(self, stage: str, num_bytes: int) -> None:
        """Nothing."""

    def start_training(self, model: str, num_tokens: int) -> None:
        """Nothing."""

    def update(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Nothing."""

    def finish(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Nothing."""

    def note(self, message: str) -> None:
        """Nothing."""


@dataclass
class JsonReporter:
    """One JSON object a line, at most one a stage and `interval_s` seconds, for logs."""

    stream: TextIO
    interval_s: float = 10.0
    _stage: str = ""
    _total: int = 0
    _last: float = field(default=0.0)
    _units: tuple[str, str] = WORK

    def start(self, stage: str, num_bytes: int) -> None:
        """Log the start."""
        self._start(stage, num_bytes, WORK)

    def start_training(self, model: str, num_tokens: int) -> None:
        """Log the start."""
        self._start(f"train {model}", num_tokens, TRAINING)

    def _start(self, stage: str, total: int, units: tuple[str, str]) -> None:
        self._stage, self._total, self._last, self._units = stage, total, time.monotonic(), units
        self._write(event="start", **{f"num_{units[1]}_expected": total})

    def update(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Log the rates, when the interval is over."""
        if time.monotonic() - self._last >= self.interval_s:
            self._last = time.monotonic()
            self._rates("progress", num_documents, num_bytes, seconds)

    def finish(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Log the final rates."""
        self._rates("finish", num_documents, num_bytes, seconds)

    def note(self, message: str) -> None:
        """Log a message."""
        self._write(event="note", message=message)

    def _rates(self, event: str, num_documents: int, num_bytes: int, seconds: float) -> None:
        rate = num_bytes / seconds if seconds else 0.0
        left = max(self._total - num_bytes, 0) / rate if rate and event == "progress" else None
        items, amount = self._units
        self._write(
            event=event,
            **{
                f"num_{items}": num_documents,
                f"num_{amount}": num_bytes,
                "seconds": round(seconds, 3),
                f"{items}_per_s": round(num_documents / seconds if seconds else 0.0, 1),
                f"{amount}_per_s": round(rate),
                "seconds_left": left and round(left, 1),
            },
        )

    def _write(self, **content: object) -> None:
        record = {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "stage": self._stage, **content}
        self.stream.write(json.dumps(record) + "\n")
        self.stream.flush()


class TerminalReporter:
    """A bar a stage with documents/s, bytes/s and time left."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None

    def start(self, stage: str, num_bytes: int) -> None:
        """Draw a new bar."""
        self._start(stage, num_bytes, describe_rates)

    def start_training(self, model: str, num_tokens: int) -> None:
        """Draw a new bar."""
        self._start(f"train {model}", num_tokens, describe_training)

    def _start(self, stage: str, total: int, describe: Callable[[int, int, float], str]) -> None:
        self._describe = describe
        self._bar = Progress(
            TextColumn("{task.description:<16}"),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[rates]}"),
            TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._task = self._bar.add_task(stage, total=max(total, 1), rates="")
        self._bar.start()

    def update(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=num_bytes, rates=self._describe(num_documents, num_bytes, seconds)
            )

    def finish(self, num_documents: int, num_bytes: int, seconds: float) -> None:
        """Fill the bar and leave it."""
        if self._bar is not None:
            rates = self._describe(num_documents, num_bytes, seconds)
            self._bar.update(self._task, total=max(num_bytes, 1), completed=max(num_bytes, 1), rates=rates)
            self._bar.stop()
            self._bar = None

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._console.print(message, highlight=False, soft_wrap=True)


def describe_rates(num_documents: int, num_bytes: int, seconds: float) -> str:
    """Documents, documents a second and megabytes a second in words."""
    if not seconds:
        return f"{num_documents:,} documents"
    rates = f"{num_documents / seconds:,.0f}/s  {num_bytes / seconds / 1e6:,.1f} MB/s"
    return f"{num_documents:,} documents  {rates}"


def describe_training(num_steps: int, num_tokens: int, seconds: float) -> str:
    """Steps and tokens a second in words."""
    return f"step {num_steps:,}" + (f"  {num_tokens / seconds:,.0f} tokens/s" if seconds else "")


@contextmanager
def watched(
    reporter: Reporter, workspace: Workspace, name: str, stages: Sequence[str], num_bytes: int
) -> Iterator[None]:
    """Report on stages while the block runs, from the tasks they leave in the ledger."""
    seen: dict[str, dict[str, LedgerRow]] = {stage: {} for stage in stages}
    started = time.monotonic()
    stop = threading.Event()

    def report(to: Callable[[int, int, float], None]) -> None:
        for stage in stages:
            seen[stage] = finished_tasks(workspace, stage, seen[stage])
        rows = [row for tasks in seen.values() for row in tasks.values()]
        to(sum(row.num_in for row in rows), sum(row.num_bytes for row in rows), time.monotonic() - started)

    def poll() -> None:
        pause = POLL_S
        while not stop.wait(pause):
            began = time.monotonic()
            report(reporter.update)
            pause = max(
                POLL_S, 20 * (time.monotonic() - began)
            )  # listing 100,000 tasks may not fill the time

    reporter.start(name, num_bytes)
    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        report(reporter.finish)
