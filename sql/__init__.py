"""The one reader of .sql files: macros, the views over a workspace, and named queries and rule sets.

A named block starts with `-- name: NAME`; the comment lines after it are its description, whose first sentence gives
the grain ("One row per ..."), and may declare parameters: `-- parameter: NAME column` for a column of `scores`,
`-- parameter: NAME text` for a string.
"""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import duckdb

NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)
PARAMETER = re.compile(r"^-- parameter: (\w+) (column|text)$")


@dataclass(frozen=True)
class Query:
    """A named block of SQL.

    Args:
        name: What users call it.
        description: What it answers, first the grain.
        parameters: Name -> `column` or `text`.
        text: The SQL; parameters stand in it as `{name}`.
    """

    name: str
    description: str
    parameters: dict[str, str]
    text: str


def read_sql(file: str) -> str:
    """The text of a file of this package."""
    return files(__package__).joinpath(file).read_text()


@cache
def read_blocks(file: str) -> dict[str, Query]:
    """The named blocks of a file, in order."""
    pieces = NAME.split(read_sql(file))[1:]
    return {name: _parse(name, body) for name, body in zip(pieces[::2], pieces[1::2], strict=True)}


def queries() -> dict[str, Query]:
    """The named queries of the command line."""
    return read_blocks("queries.sql")


def views() -> dict[str, Query]:
    """The views of the catalog, in order of creation."""
    return read_blocks("views.sql")


def rule_sets() -> dict[str, str]:
    """Name -> boolean expression over score columns, for the published rule sets."""
    return {name: query.text for name, query in read_blocks("rule_sets.sql").items()}


def install_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Define the macros that rule sets and queries call."""
    connection.execute(read_sql("macros.sql"))


@cache
def reserved_words() -> frozenset[str]:
    """Words that DuckDB takes for syntax where a column could stand."""
    return _names("SELECT keyword_name FROM duckdb_keywords() WHERE keyword_category = 'reserved'")


@cache
def inconstant_functions() -> frozenset[str]:
    """Functions whose answer depends on more than their arguments: `random`, `now`, `nextval`."""
    return _names("SELECT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'")


def _names(query: str) -> frozenset[str]:
    with duckdb.connect() as connection:
        return frozenset(name for (name,) in connection.execute(query).fetchall())


def _parse(name: str, body: str) -> Query:
    description: list[str] = []
    parameters: dict[str, str] = {}
    lines = body.strip().splitlines()
    while lines and lines[0].startswith("--"):
        line = lines.pop(0)
        if match := PARAMETER.match(line):
            parameters[match[1]] = match[2]
        else:
            description.append(line.removeprefix("--").strip())
    return Query(name, " ".join(description), parameters, "\n".join(lines).strip().rstrip(";"))
