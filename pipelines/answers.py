"""Answers of SQL queries in the formats of the command line."""

import sys
from collections.abc import Sequence
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
            pa.csv.write_csv(_flat(answer), sink)
        case "json":
            sink.write(orjson.dumps(answer.to_pylist(), default=_plain, option=orjson.OPT_INDENT_2) + b"\n")
        case "parquet":
            pa.parquet.write_table(answer, sink)
        case _:
            lines = ["\t".join(answer.column_names)]
            lines += ["\t".join(as_text(value) for value in row.values()) for row in answer.to_pylist()]
            sink.write(("\n".join(lines) + "\n").encode())


def _flat(answer: pa.Table) -> pa.Table:
    """Nested columns as JSON text, which CSV can hold."""
    for position, field in enumerate(answer.schema):
        if pa.types.is_nested(field.type):
            text = [
                None if value is None else orjson.dumps(value, default=_plain).decode()
                for value in answer[position].to_pylist()
            ]
            answer = answer.set_column(position, field.name, pa.array(text, pa.string()))
    return answer


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
    return str(value).replace("\n", "\\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
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
