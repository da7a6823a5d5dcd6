"""Answers of SQL queries in the formats of the command line."""

import sys
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.csv

from gristmill import sql
from gristmill.pipelines import files


def write_answer(answer: pa.Table, form: str, output: str | None) -> None:
    """Write a table as CSV, JSON (one array of objects), Parquet, or text.

    Args:
        answer: Any rows.
        form: `table`, `csv`, `json` or `parquet`.
        output: Path, None for standard output.
    """
    if output is None:
        _write(answer, form, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    else:
        with files.committed(output) as file:
            _write(answer, form, file)


def _write(answer: pa.Table, form: str, sink: BinaryIO) -> None:
    match form:
        case "csv":
            pa.csv.write_csv(_as_text(answer, _is_not_for_csv), sink)
        case "json":
            sink.write(orjson.dumps(answer.to_pylist(), default=_plain, option=orjson.OPT_INDENT_2) + b"\n")
        case "parquet":
            pa.parquet.write_table(_as_text(answer, _is_duckdbs), sink)
        case _:
            lines = ["\t".join(answer.column_names)]
            lines += ["\t".join(as_text(value) for value in row.values()) for row in answer.to_pylist()]
            sink.write(("\n".join(lines) + "\n").encode())


def _as_text(answer: pa.Table, is_text: Callable[[pa.DataType], bool]) -> pa.Table:
    """The same rows, columns of some types as text (JSON where they are nested)."""
    for position, field in enumerate(answer.schema):
        if is_text(field.type):
            text = [None if value is None else as_text(value) for value in answer[position].to_pylist()]
            answer = answer.set_column(position, field.name, pa.array(text, pa.string()))
    return answer


def _is_not_for_csv(kind: pa.DataType) -> bool:
    return pa.types.is_nested(kind) or pa.types.is_binary(kind) or _is_duckdbs(kind)


def _is_duckdbs(kind: pa.DataType) -> bool:
    """Whether a type is one of DuckDB's that neither CSV nor Parquet knows."""
    return pa.types.is_interval(kind)


def as_text(value: Any) -> str:
    """A value for a person to read."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, dict)):
        return orjson.dumps(value, default=_plain).decode()
    text = str(_plain(value) if isinstance(value, bytes) else value)
    return text.replace("\n", "\\n").replace("\t", "\\t")


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        if value != value.to_integral_value():
            return float(value)
        return int(value) if abs(value) < 2**63 else str(value)  # JSON's readers know no larger ones
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return str(value)


def describe_nouns() -> list[tuple[str, Sequence[dict[str, Any]]]]:
    """The nouns and the named queries, for a user who asked nothing."""
    nouns = [{"noun": name, "rows": view.description} for name, view in sql.views().items()]
    nouns += [
        {"noun": "scores", "rows": "One row per document: every score column, and the published rule sets."},
        {"noun": "score_<scorer>", "rows": "One row per document: the columns of one scorer."},
        {"noun": "texts", "rows": "One row per document with its text."},
    ]
    named = [
        {"query": name, "parameters": ", ".join(query.parameters), "rows": query.description}
        for name, query in sql.queries().items()
    ]
    return [("nouns", nouns), ("queries (--query NAME --param NAME=VALUE)", named)]
