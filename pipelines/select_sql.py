"""Selection rules as SQL expressions over the joined columns of a shard: checked before any work, compiled once."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa
from gristmill import sql
from gristmill.pipelines.recipe import Recipe, Selection, nearest
from gristmill.scorers import schema
from gristmill.scorers.base import Column, RecipeError, Scorer

RANDOM_KEY = {"quota": "quota_key", "sample": "sample_key"}
"""Columns with a seeded random number for each document, one a step, so that no step repeats another's choice."""
UNITS = {"documents": "1", "characters": "num_chars", "tokens": "num_tokens"}


@dataclass(frozen=True)
class Budget:
    """A cut by a score: keep the shortest prefix, in the order of `key`, whose weights reach the budget.

    Args:
        step: `quota`, `sample` or `top`.
        key: SQL expression, lower is better, finite.
        weight: SQL expression for what the budget counts.
        of: Unit of the weight.
        keep: Amounts by source, or one amount under None for all sources together.
    """

    step: str
    key: str
    weight: str
    of: str
    keep: Mapping[str | None, Any]


@dataclass(frozen=True)
class CompiledSelection:
    """A selection as SQL.

    Args:
        selection: As in the recipe.
        predicates: Step name -> boolean expression, in order.
        preference: SQL expression for deduplication, lower is preferred; None where duplicates stay.
        budgets: In order.
        columns: Every column the expressions read, computed ones resolved.
        expanded: Computed column that some expression names -> its own expression.
    """

    selection: Selection
    predicates: dict[str, str]
    preference: str | None
    budgets: tuple[Budget, ...]
    columns: tuple[str, ...]
    expanded: dict[str, str]

    def columns_of(self, expression: str) -> list[str]:
        """The stored columns an expression reads."""
        return sorted(set(_stored_columns(expression, self.expanded)))


def score_columns(scorers: Sequence[Scorer]) -> dict[str, Column]:
    """Every column the scorers make.

    Raises:
        RecipeError: If two scorers make a column of the same name.
    """
    columns: dict[str, Column] = {}
    for scorer in scorers:
        for column in scorer.columns:
            if column.name in columns or column.name in schema.DOCUMENTS.names:
                raise RecipeError(f"score: column {column.name!r} of {scorer.name} exists already")
            columns[column.name] = column
    return columns


def compile_selection(
    recipe: Recipe, selection: Selection, scorers: Sequence[Scorer], place: str
) -> CompiledSelection:
    """Check every expression of a selection against the columns there will be.

    Args:
        recipe: For the names of sources.
        selection: What to compile.
        scorers: The recipe's scorers, which decide what columns there are.
        place: Where the selection stands in the recipe, for errors.

    Raises:
        RecipeError: With the place, what is wrong and the nearest valid column.
    """
    checker = _Checker(scorers)
    predicates = dict(selection.where)
    for step, predicate in predicates.items():
        checker.check(predicate, "BOOLEAN", f"{place}.where.{step}")
    preference = None
    if selection.deduplicate is not None:
        if "exact_duplicate_hash" not in checker.columns:
            raise RecipeError(
                f"{place}.deduplicate: no scorer marks duplicates; add exact_duplicate to `score`"
            )
        prefer = selection.deduplicate.prefer
        ranks = "".join(f" WHEN source = {quote(source)} THEN {rank}" for rank, source in enumerate(prefer))
        rank = f"CASE{ranks} ELSE {len(prefer)} END" if ranks else "0"
        then = "0.0"
        if selection.deduplicate.then:
            then = checker.key(selection.deduplicate.then, None, f"{place}.deduplicate.then")
        preference = f"row({rank}, coalesce({then}, 'inf'::DOUBLE))"
        checker.used += ["source", "exact_duplicate_hash"]
    budgets = tuple(_budgets(selection, checker, place))
    columns = sorted(
        {column for text in checker.used for column in _stored_columns(text, checker.expanded)} | {"source"}
    )
    named = {name for text in checker.used for name in _column_references(text)}
    expanded = {name: text for name, text in checker.expanded.items() if name in named}
    return CompiledSelection(selection, predicates, preference, budgets, tuple(columns), expanded)


def _budgets(selection: Selection, checker: "_Checker", place: str) -> Iterator[Budget]:
    for step in ("quota", "sample", "top"):
        rule = getattr(selection, step)
        if rule is None:
            continue
        weight = UNITS[rule.of]
        if weight not in checker.columns and weight != "1":
            raise RecipeError(
                f"{place}.{step}.of: no scorer makes {weight!r}, so {rule.of} cannot be counted"
            )
        checker.used.append(weight)
        if step == "sample" or rule.by is None:
            key = RANDOM_KEY[step]
        else:
            key = checker.key(rule.by, rule.direction, f"{place}.{step}.by")
        keep = rule.keep if step == "quota" else {None: rule.keep}
        yield Budget(step, key, weight, rule.of, keep)


class _Checker:
    """Binds expressions against an empty table with the columns there will be."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.described = score_columns(scorers)
        fields = [
            *schema.DOCUMENTS,
            *(pa.field(column.name, column.type) for column in self.described.values()),
        ]
        self.connection = duckdb.connect()
        sql.install_macros(self.connection)
        self.connection.register("stored", pa.schema(fields).empty_table())
        self.columns = {field.name for field in fields}
        self.expanded = {}
        for name, expression in sql.rule_sets().items():
            if set(_stored_columns(expression, {})) <= self.columns:
                self.expanded[name] = expression
        self.used: list[str] = []

    def check(self, expression: str, kind: str, place: str) -> None:
        """Refuse an expression that does not bind or has the wrong type."""
        computed = "".join(f", ({text}) AS {name}" for name, text in self.expanded.items())
        try:
            statements = self.connection.extract_statements(
                f"SELECT ({expression}) FROM (SELECT *{computed} FROM stored)"
            )
            if len(statements) != 1:
                raise RecipeError(f"{place}: expected one SQL expression; found {expression!r}")
            found = self.connection.execute(statements[0]).description[0][1]
        except duckdb.Error as error:
            raise RecipeError(f"{place}: {self._explain(expression, error)}") from error
        if kind == "BOOLEAN" and str(found) != kind:
            raise RecipeError(
                f"{place}: {expression!r} is {found}, expected a condition that is true or false"
            )
        if kind == "DOUBLE" and str(found) in ("VARCHAR", "BOOLEAN", "UUID", "TIMESTAMP WITH TIME ZONE"):
            raise RecipeError(f"{place}: {expression!r} is {found}, expected a number")
        self.used.append(expression)

    def key(self, expression: str, direction: str | None, place: str) -> str:
        """An expression turned so that lower is better."""
        self.check(expression, "DOUBLE", place)
        column = self.described.get(expression)
        if direction is None and column is not None and column.higher_is_better is None:
            raise RecipeError(
                f"{place}: {expression} has no better end; say `direction: highest` or `direction: lowest`"
            )
        lowest = direction == "lowest" or (
            direction is None and column is not None and not column.higher_is_better
        )
        return f"({expression})::DOUBLE" if lowest else f"-(({expression})::DOUBLE)"

    def _explain(self, expression: str, error: duckdb.Error) -> str:
        message = str(error).partition("\n")[0]
        try:
            names = set(_column_references(expression))
        except duckdb.Error:
            return f"{expression!r} is not SQL: {message}"
        allowed = self.columns | self.expanded.keys()
        unknown = sorted(names - allowed)
        if not unknown:
            return f"{expression!r}: {message}"
        known = [name for name in sorted(allowed) if name not in schema.DOCUMENTS.names] or sorted(allowed)
        hint = nearest(unknown[0], [*known, "source", "year", "host"])
        return f"no scorer of this recipe makes column {unknown[0]!r}{hint}"


def quote(value: str) -> str:
    """A string as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _stored_columns(expression: str, expanded: Mapping[str, str]) -> Iterator[str]:
    for name in _column_references(expression):
        if name in expanded:
            yield from _stored_columns(expanded[name], expanded)
        elif name not in RANDOM_KEY.values():
            yield name


def _column_references(expression: str) -> list[str]:
    """The columns an expression names, without computing anything."""
    (serialised,) = duckdb.execute("SELECT json_serialize_sql(?)", [f"SELECT {expression}"]).fetchone() or (
        "{}",
    )
    tree = json.loads(serialised)
    if tree.get("error"):
        raise duckdb.ParserException(tree.get("error_message", "cannot be parsed"))
    return list(_walk(tree))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("class") == "COLUMN_REF":
            yield node["column_names"][-1].lower()
        for child in node.values():
            yield from _walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from _walk(child)
