"""Beam pipelines on any runner, with errors that name their cause.

The local default is Beam's FnApiRunner by name (`DirectRunner` would first try to download another binary): in
process for one worker, `multi_processing` otherwise.
"""

import argparse
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import (
    DirectOptions,
    PipelineOptions,
    StandardOptions,
    TestOptions,
    WorkerOptions,
)
from apache_beam.portability.api import beam_provision_api_pb2
from apache_beam.runners.job.utils import dict_to_struct
from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
from apache_beam.runners.runner import PipelineResult, create_runner
from apache_beam.transforms.resources import AcceleratorHint

from gristmill.scorers import base
from gristmill.scorers.base import GristmillError, RecipeError, WorkspaceError

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
LOCAL_NAMES = (None, "directrunner", "direct", "fnapirunner", "fnapi", LOCAL_RUNNER.lower())
QUIET = {"__main__": "ERROR"}
"""A local worker process warns of a staging folder that only remote workers have."""
WORKER_MODULE = b"apache_beam.runners.worker.sdk_worker_main"
INTERRUPT_S = 10.0
"""Longer than Beam's runner takes to clean up after an interruption."""
WATCHING_THREAD = "run_worker"
RAISED = re.compile(
    rf"(?:{re.escape(base.__name__)}\.)?(\w+Error): (.*?)(?: \[while running|\n|\Z)", re.DOTALL
)


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from the command line; the file systems are told of them, too (credentials, regions).

    Raises:
        RecipeError: If an argument is no option of Beam, or asks for a dry run of a runner that has none.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    try:
        _, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise RecipeError(str(error)) from error
    if unknown:
        raise RecipeError(f"unknown option {unknown[0]!r}; expected one of gristmill's (--help) or of Beam's")
    options = PipelineOptions(list(arguments))
    if str(options.view_as(StandardOptions).runner or LOCAL_RUNNER).lower() in LOCAL_NAMES:
        options.view_as(StandardOptions).runner = LOCAL_RUNNER
        if options.view_as(DirectOptions).direct_num_workers != 1:
            options.view_as(DirectOptions).direct_running_mode = "multi_processing"
            levels = options.view_as(WorkerOptions)
            levels.sdk_harness_log_level_overrides = QUIET | (levels.sdk_harness_log_level_overrides or {})
    name = options.view_as(StandardOptions).runner
    try:
        create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
        raise RecipeError(f"--runner {name}: {str(error).partition(chr(10))[0]}") from error
    if is_translation(options) and not is_dataflow(options):
        raise RecipeError(
            "--dry_run is Beam's and only DataflowRunner has it; gristmill's own --dry-run prints the plan instead"
        )
    FileSystems.set_options(options)
    return options


def num_workers(options: PipelineOptions) -> int | None:
    """Workers of a local run, None where the runner decides."""
    is_local = options.view_as(StandardOptions).runner == LOCAL_RUNNER
    return (options.view_as(DirectOptions).direct_num_workers or os.cpu_count()) if is_local else None


def is_dataflow(options: PipelineOptions) -> bool:
    """Whether the workers are machines of Dataflow, which see no file of this one."""
    return "dataflow" in str(options.view_as(StandardOptions).runner).lower()


def is_translation(options: PipelineOptions) -> bool:
    """Whether pipelines are only translated for the runner (Beam's `--dry_run`)."""
    return bool(options.view_as(TestOptions).dry_run)


def run_pipeline(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> PipelineResult:
    """Build a pipeline, run it to its end, and raise what its workers raised.

    Raises:
        GristmillError: The worker's own, without the runner's traceback around it.
    """
    try:
        with _deaths_noticed(), beam.Pipeline(_local_runner(options), options=options) as pipeline:
            build(pipeline)
    except GristmillError:
        raise
    except Exception as error:
        if cause := _cause(str(error)):
            raise cause from error
        raise
    return pipeline.result


@contextmanager
def _deaths_noticed() -> Iterator[None]:
    """Make an error of the death of a local worker process, on which Beam's local runner would wait for ever.

    Beam's thread that watches over the process raises. That ends the other workers here, for which Beam would wait as
    well, and interrupts the main thread, the only one that a signal can interrupt: again and again, because Beam may
    swallow one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    deaths: list[threading.ExceptHookArgs] = []
    over = threading.Event()
    interrupter = threading.Thread(target=_interrupt, args=(over,), daemon=True)

    def notice(failure: threading.ExceptHookArgs) -> None:
        if failure.thread is None or failure.thread.name != WATCHING_THREAD:
            hook(failure)
            return
        deaths.append(failure)
        if len(deaths) == 1:
            interrupter.start()

    hook, threading.excepthook = threading.excepthook, notice
    handler = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        if not deaths:
            raise
        raise WorkspaceError(
            f"a worker process died ({deaths[0].exc_value}); was memory short? What is committed stays: run again, "
            "with fewer workers"
        ) from None
    finally:
        over.set()
        if deaths:
            interrupter.join()
        threading.excepthook = hook
        signal.signal(signal.SIGUSR1, handler)


def _interrupt(over: threading.Event) -> None:
    """End the worker processes and interrupt the main thread, until it is over."""
    while not over.is_set():
        for process in worker_processes():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGUSR1)
        over.wait(INTERRUPT_S)


def worker_processes() -> list[int]:
    """The ids of the worker processes that Beam's local runner has started from this process."""
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(FileNotFoundError, ProcessLookupError):
                if WORKER_MODULE in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


def _local_runner(options: PipelineOptions) -> FnApiRunner | None:
    """The local runner, told to hand the options to its worker processes, which Beam does for every other runner."""
    if options.view_as(StandardOptions).runner != LOCAL_RUNNER:
        return None
    given = options.get_all_options(drop_default=True)
    # Numbers travel as text: the message knows no whole ones, and a worker refuses 2.0 of them.
    told = {name: str(value) if type(value) is int else value for name, value in given.items()}
    info = beam_provision_api_pb2.ProvisionInfo(pipeline_options=dict_to_struct(told))
    return FnApiRunner(provision_info=ExtendedProvisionInfo(info))


def accelerated_transforms(pipeline: Any) -> Iterator[tuple[str, str]]:
    """Names of the transforms of a translated pipeline that want an accelerator, and which."""
    for transform in pipeline.components.transforms.values():
        environment = pipeline.components.environments[transform.environment_id]
        if hint := environment.resource_hints.get(AcceleratorHint.urn):
            yield transform.unique_name, hint.decode()


def _cause(text: str) -> GristmillError | None:
    for name, message in reversed(RAISED.findall(text)):
        kind = getattr(base, name, None)
        if isinstance(kind, type) and issubclass(kind, GristmillError):
            return kind(message.strip())
    return None
