"""Beam pipelines on any runner, with errors that name their cause.

The local default is Beam's FnApiRunner by name (`DirectRunner` would first try to download another binary): in
process for one worker, `multi_processing` above.
"""

import argparse
import re
from collections.abc import Callable, Sequence

import apache_beam as beam
from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
from gristmill.scorers import base
from gristmill.scorers.base import GristmillError, RecipeError

LOCAL_RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
LOCAL_NAMES = (None, "DirectRunner", "FnApiRunner", LOCAL_RUNNER)
RAISED = re.compile(
    rf"(?:{re.escape(base.__name__)}\.)?(\w+Error): (.*?)(?: \[while running|\n|\Z)", re.DOTALL
)


def beam_options(arguments: Sequence[str]) -> PipelineOptions:
    """Beam's options from the command line.

    Raises:
        RecipeError: If an argument is no option of Beam.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for kind in PipelineOptions.__subclasses__():
        kind._add_argparse_args(parser)
    _, unknown = parser.parse_known_args(list(arguments))
    if unknown:
        raise RecipeError(f"unknown option {unknown[0]!r}; expected one of gristmill's (--help) or of Beam's")
    options = PipelineOptions(list(arguments))
    if options.view_as(StandardOptions).runner in LOCAL_NAMES:
        options.view_as(StandardOptions).runner = LOCAL_RUNNER
        if options.view_as(DirectOptions).direct_num_workers > 1:
            options.view_as(DirectOptions).direct_running_mode = "multi_processing"
    return options


def num_workers(options: PipelineOptions) -> int | None:
    """Workers of a local run, None where the runner decides."""
    is_local = options.view_as(StandardOptions).runner == LOCAL_RUNNER
    return options.view_as(DirectOptions).direct_num_workers if is_local else None


def run_pipeline(options: PipelineOptions, build: Callable[[beam.Pipeline], object]) -> None:
    """Build a pipeline, run it to its end, and raise what its workers raised.

    Raises:
        GristmillError: The worker's own, without the runner's traceback around it.
    """
    try:
        with beam.Pipeline(options=options) as pipeline:
            build(pipeline)
    except GristmillError:
        raise
    except Exception as error:
        if cause := _cause(str(error)):
            raise cause from error
        raise


def _cause(text: str) -> GristmillError | None:
    for name, message in reversed(RAISED.findall(text)):
        kind = getattr(base, name, None)
        if isinstance(kind, type) and issubclass(kind, GristmillError):
            return kind(message.strip())
    return None
