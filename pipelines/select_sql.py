"""Selection rules as SQL expressions over the joined columns of a shard: checked before any work, compiled once."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from gristmill import sql
from gristmill.pipelines.recipe import Duplicates, Recipe
from gristmill.pipelines.recipe_select import LossWeights, Preference, Selection, Thin, Top
from gristmill.pipelines.recipe_values import nearest
from gristmill.scorers import schema
from gristmill.scorers.base import Column, RecipeError, Scorer
from gristmill.scorers.color_filter import ColorFilter

RANDOM_KEY = {"quota": "quota_key", "sample": "sample_key", "top": "batch_key"}
"""Columns with a seeded random number for each document, one a step, so that no step repeats another's choice."""
UNITS = {"documents": "1", "characters": "num_chars", "tokens": "num_tokens"}
NAME = re.compile(r"[a-z][a-z0-9_]*")
SIGNATURES = "minhash"
"""Scorer whose signatures near duplicates are found by."""
SIMHASH = "simhash"
NUM_SHINGLES = "simhash_num_shingles"
WINDOWS = "color_filter_windows"
NEAR = "near_duplicate"
"""Column with the near-duplicate cluster of a document."""
TAKEN = {NEAR, "shard_number", "position", "verdict", *RANDOM_KEY.values()}
"""Columns that selection itself puts beside the scores."""
NUMBERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
BEYOND_ONE_DOCUMENT = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "LAMBDA": "a lambda",
    "PARAMETER": "a parameter",
}
"""What an expression may not hold: it sees the columns of one document, so that shards can be judged one by one."""


@dataclass(frozen=True)
class Budget:
    """A cut by a score: keep the shortest prefix, in the order of `key`, whose weights reach the budget.

    Args:
        step: `quota`, `sample` or `top`.
        key: SQL expression, lower is better, finite.
        weight: SQL expression for what the budget counts.
        of: Unit of the weight.
        keep: Amounts by source, or one amount under None for all sources together.
        weights: Where `key` is a loss that weighs a random order; None where it is the order.
    """

    step: str
    key: str
    weight: str
    of: str
    keep: Mapping[str | None, Any]
    weights: LossWeights | None = None


@dataclass(frozen=True)
class CompiledSelection:
    """A selection as SQL.

    Args:
        selection: As in the recipe.
        predicates: Step name -> boolean expression, in order.
        group: SQL expression for the group that is thinned, null where a document is in none; None for no thinning.
        exemplar_preference: SQL expression for thinning, lower is preferred; None for no thinning.
        preference: SQL expression for deduplication, lower is preferred; None where duplicates stay.
        duplicate_key: SQL expression for the duplicate cluster, null for none; None where duplicates stay.
        near: When documents are near duplicates, None where only equal texts are duplicates or duplicates stay.
        budgets: In order.
        window_scores: SQL expression for the windows of a document that compete in `top`, as a list of structs of key
            (lower is better) and weight; None where whole documents do.
        batch_key: Column with the random number by which `top` makes batches; None for one choice among all.
        columns: Every column the expressions read, computed ones resolved.
        expanded: Computed column that some expression names -> its own expression.
    """

    selection: Selection
    predicates: dict[str, str]
    group: str | None
    exemplar_preference: str | None
    preference: str | None
    duplicate_key: str | None
    near: Duplicates | None
    budgets: tuple[Budget, ...]
    window_scores: str | None
    batch_key: str | None
    columns: tuple[str, ...]
    expanded: dict[str, str]

    def reads(self, scorer: Scorer) -> bool:
        """Whether decisions depend on a scorer."""
        is_signed = self.near is not None and scorer.name == SIGNATURES
        return is_signed or any(name in self.columns for name in scorer.schema().names)

    def columns_of(self, expression: str) -> list[str]:
        """The stored columns an expression reads."""
        return sorted(set(_stored_columns(expression, self.expanded)))


def score_columns(scorers: Sequence[Scorer]) -> dict[str, Column]:
    """Every column the scorers make.

    Raises:
        RecipeError: If two scorers make a column of the same name, or a name cannot stand in SQL.
    """
    columns: dict[str, Column] = {}
    taken = {*schema.DOCUMENTS.names, *sql.rule_sets(), *TAKEN}
    for scorer in scorers:
        for name in (scorer.name, *(column.name for column in scorer.columns)):
            if not NAME.fullmatch(name) or name in sql.reserved_words():
                raise RecipeError(
                    f"score: {scorer.name!r} gives the name {name!r}, expected lower-case letters, digits and "
                    "underscores, and no reserved word of SQL"
                )
        for column in scorer.columns:
            if column.name in columns or column.name in taken:
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
    group = exemplar_preference = preference = duplicate_key = None
    if selection.thin is not None:
        group = _group(checker, selection.thin, f"{place}.thin")
        exemplar_preference = _preference(recipe, checker, selection.thin, f"{place}.thin")
        checker.used += [group, SIMHASH]
    if selection.deduplicate is not None:
        duplicate_key = _duplicate_key(recipe, checker, place)
        preference = _preference(recipe, checker, selection.deduplicate, f"{place}.deduplicate")
        checker.used.append(duplicate_key)
    if selection.quota is not None:
        _check_sources(recipe, selection.quota.keep, f"{place}.quota.keep")
    budgets = tuple(_budgets(selection, checker, place))
    window_scores = batch_key = None
    if selection.top is not None and selection.top.unit == "windows":
        window_scores = _window_scores(recipe, selection.top, scorers, f"{place}.top")
        checker.used.append(WINDOWS)
    if selection.top is not None and selection.top.batch is not None:
        batch_key = RANDOM_KEY["top"]
    columns = sorted(
        {column for text in checker.used for column in _stored_columns(text, checker.expanded)} | {"source"}
    )
    named = {name for text in checker.used for name in _column_references(text)}
    expanded = {name: text for name, text in checker.expanded.items() if name in named}
    near = recipe.duplicates if NEAR in columns else None
    return CompiledSelection(
        selection,
        predicates,
        group,
        exemplar_preference,
        preference,
        duplicate_key,
        near,
        budgets,
        window_scores,
        batch_key,
        tuple(columns),
        expanded,
    )


def _group(checker: "_Checker", rule: Thin, place: str) -> str:
    """SQL for a hash of the group a document is thinned in, null for none and where there is nothing to compare."""
    if not {SIMHASH, NUM_SHINGLES} <= checker.columns:
        raise RecipeError(f"{place}: no scorer makes {SIMHASH}; add simhash to `score`")
    if rule.within not in checker.columns:
        raise RecipeError(
            f"{place}.within: no column {rule.within!r} is stored{nearest(rule.within, checker.columns)}"
        )
    if pa.types.is_floating(checker.types[rule.within]):
        raise RecipeError(
            f"{place}.within: {rule.within} is {checker.types[rule.within]}, expected a column of values that "
            "documents share, such as host or source"
        )
    return f"CASE WHEN {NUM_SHINGLES} > 0 THEN md5({rule.within}::VARCHAR)::UUID END"


def _preference(recipe: Recipe, checker: "_Checker", rule: Preference, place: str) -> str:
    """SQL for rank and score of a document among similar ones, lower is preferred."""
    _check_sources(recipe, rule.prefer, f"{place}.prefer")
    ranks = "".join(f" WHEN source = {quote(source)} THEN {rank}" for rank, source in enumerate(rule.prefer))
    rank = f"CASE{ranks} ELSE {len(rule.prefer)} END" if ranks else "0"
    then = checker.key(rule.then, rule.direction, f"{place}.then") if rule.then else "0.0"
    return f"row({rank}, coalesce({then}, 'inf'::DOUBLE))"


def _duplicate_key(recipe: Recipe, checker: "_Checker", place: str) -> str:
    """SQL for the duplicate cluster of a document: of near ones if they are marked, else of equal texts."""
    exact = "exact_duplicate_hash" in checker.columns
    if recipe.duplicates is not None:
        return f"coalesce({NEAR}, exact_duplicate_hash)" if exact else NEAR
    if not exact:
        raise RecipeError(
            f"{place}.deduplicate: nothing marks duplicates; add exact_duplicate to `score`, or minhash and a "
            "`duplicates` section"
        )
    return "exact_duplicate_hash"


def _check_sources(recipe: Recipe, named: Iterable[str], place: str) -> None:
    """Refuse a source that no input has, unless an input takes its sources from a field."""
    sources = {entry.source for entry in recipe.corpus}
    if any(entry.source_field for entry in recipe.corpus):
        return
    for source in named:
        if source not in sources:
            raise RecipeError(f"{place}: no input has the source {source!r}{nearest(source, sources)}")


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
        weights = rule.weights if step == "sample" else None
        if weights is not None:
            key = checker.key(weights.by, "lowest", f"{place}.sample.weights.by")
        elif step == "sample":
            key = RANDOM_KEY[step]
        elif rule.by is None:
            if rule.direction is not None:
                raise RecipeError(
                    f"{place}.{step}.direction: {rule.direction!r} without `by`; say of which score"
                )
            key = RANDOM_KEY[step]
        else:
            key = checker.key(rule.by, rule.direction, f"{place}.{step}.by")
        keep = rule.keep if step == "quota" else {None: rule.keep}
        yield Budget(step, key, weight, rule.of, keep, weights)


def _window_scores(recipe: Recipe, top: Top, scorers: Sequence[Scorer], place: str) -> str:
    """SQL for key and weight of each window of a document."""
    scorer = next((scorer for scorer in scorers if isinstance(scorer, ColorFilter)), None)
    if scorer is None or top.by != scorer.name:
        raise RecipeError(
            f"{place}.by: found {top.by!r}; windows have scores of color_filter alone, expected that scorer"
        )
    if top.of != "tokens":
        raise RecipeError(
            f"{place}.of: found {top.of!r}; windows are counted in tokens, expected `of: tokens`"
        )
    if not scorer.windows:
        raise RecipeError(
            f"{place}.unit: color_filter keeps no scores of windows; add `windows: true` to its options in `score`"
        )
    if scorer.stride not in (None, scorer.window):
        raise RecipeError(
            f"{place}.unit: color_filter has a stride of {scorer.stride}; expected windows that do not overlap: leave "
            "`stride` out of its options in `score`"
        )
    if recipe.export.clean_lines is not None:
        raise RecipeError(
            "export.clean_lines: the borders of windows cut lines, and cleaning would drop them; leave it out, or "
            f"choose whole documents ({place}.unit)"
        )
    sign = "" if top.direction == "lowest" else "-"
    return (
        f"[{{'key': {sign}(loss.nll_prior::DOUBLE - loss.nll_conditional::DOUBLE), "
        f"'weight': loss.num_tokens::BIGINT}} FOR loss IN {WINDOWS}]"
    )


class _Checker:
    """Binds expressions against an empty table with the columns there will be."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.described = score_columns(scorers)
        fields = [
            *schema.DOCUMENTS,
            *(
                pa.field(column.name, column.type)
                for column in self.described.values()
                if not pa.types.is_nested(column.type)
            ),
        ]
        self.connection = duckdb.connect()
        sql.install_macros(self.connection)
        self.connection.register("stored", pa.schema(fields).empty_table())
        self.types = {field.name: field.type for field in fields}
        self.columns = self.types.keys()
        self.expanded = {}
        for name, expression in sql.rule_sets().items():
            if set(_stored_columns(expression, {})) <= self.columns:
                self.expanded[name] = expression
        self.used: list[str] = []

    def check(self, expression: str, kind: str, place: str) -> None:
        """Refuse an expression that does not bind, has the wrong type, or depends on more than one document."""
        try:
            nodes = list(_nodes(_parse(expression)))
        except duckdb.Error as error:
            raise RecipeError(f"{place}: {expression!r} is not an SQL expression: {_line(error)}") from error
        for node in nodes:
            if beyond := BEYOND_ONE_DOCUMENT.get(node["class"]):
                raise RecipeError(
                    f"{place}: {expression!r} holds {beyond}; expected one document's columns only"
                )
            if node.get("function_name") in sql.inconstant_functions():
                raise RecipeError(
                    f"{place}: {node['function_name']}() gives another answer each time; a selection must not"
                )
        self._refuse_unknown(expression, place)
        computed = "".join(f", ({text}) AS {name}" for name, text in self.expanded.items())
        try:
            # WHERE takes no aggregates, which would mix documents.
            found = self.connection.execute(
                f"SELECT ({expression}) FROM (SELECT *{computed} FROM stored) WHERE ({expression}) IS NULL"
            ).description[0][1]
        except duckdb.Error as error:
            raise RecipeError(f"{place}: {expression!r}: {_line(error)}") from error
        if kind == "BOOLEAN" and str(found) != kind:
            raise RecipeError(
                f"{place}: {expression!r} is {found}, expected a condition that is true or false"
            )
        if kind == "DOUBLE" and str(found).partition("(")[0] not in NUMBERS:
            raise RecipeError(f"{place}: {expression!r} is {found}, expected a number")
        self.used.append(expression)

    def key(self, expression: str, direction: str | None, place: str) -> str:
        """An expression turned so that lower is better."""
        self.check(expression, "DOUBLE", place)
        name = expression.strip().lower()
        if direction is None and name in self.columns:
            column = self.described.get(name)
            if column is None or column.higher_is_better is None:
                raise RecipeError(
                    f"{place}: {name} has no better end; say `direction: highest` or `direction: lowest`"
                )
            direction = "highest" if column.higher_is_better else "lowest"
        return f"({expression})::DOUBLE" if direction == "lowest" else f"-(({expression})::DOUBLE)"

    def _refuse_unknown(self, expression: str, place: str) -> None:
        allowed = self.columns | self.expanded.keys()
        unknown = sorted(set(_column_references(expression)) - allowed)
        if unknown:
            known = [name for name in sorted(allowed) if name not in schema.DOCUMENTS.names] or sorted(
                allowed
            )
            hint = nearest(unknown[0], [*known, "source", "year", "host"])
            raise RecipeError(f"{place}: no scorer of this recipe makes column {unknown[0]!r}{hint}")


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
    nodes = _nodes(_parse(expression))
    return [node["column_names"][-1].lower() for node in nodes if node["class"] == "COLUMN_REF"]


def _parse(expression: str) -> Any:
    """The syntax tree of an expression.

    Raises:
        duckdb.ParserException: If it is not one expression.
    """
    ((serialised,),) = duckdb.execute("SELECT json_serialize_sql(?)", [f"SELECT {expression}"]).fetchall()
    tree = json.loads(serialised)
    if tree["error"]:
        raise duckdb.ParserException(tree["error_message"])
    if len(tree["statements"]) != 1:
        raise duckdb.ParserException("several statements")
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """The parts of a syntax tree that are expressions, outer ones first."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]
