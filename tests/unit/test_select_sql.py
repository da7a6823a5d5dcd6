"""Every mistake in a selection's expressions is one line that names the place, before any work starts."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import pyarrow as pa
import pytest
from mills import Numbers

from gristmill import sql
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.select_sql import Budget, compile_selection, quote, score_columns
from gristmill.scorers.base import Column, RecipeError, Scorer
from gristmill.scorers.duplicates import ExactDuplicate
from gristmill.scorers.rules import Rules
from gristmill.scorers.simhash import SimHash

RECIPE = Recipe(
    workspace="/w", corpus=[{"path": "/a.jsonl", "source": "web"}, {"path": "/b.jsonl", "source": "books"}]
)
ALL = (Numbers(), ExactDuplicate(), Rules())


def compiled(scorers=ALL, recipe=RECIPE, **rules):
    return compile_selection(recipe, Selection(name="s", **rules), scorers, "select.0")


def refused(scorers=ALL, recipe=RECIPE, **rules):
    with pytest.raises(RecipeError) as caught:
        compiled(scorers, recipe, **rules)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("qualty > 1", "no scorer of this recipe makes column 'qualty'; allowed: "),
        ("qualty > 1", "; did you mean 'quality'?"),
        ("quality > nothing_like_it", "no scorer of this recipe makes column 'nothing_like_it'"),
        ('topic = "even"', "no scorer of this recipe makes column 'even'"),
        ("current_timestamp > created", "no scorer of this recipe makes column 'current_timestamp'"),
        ("quality", "'quality' is DOUBLE, expected a condition that is true or false"),
        ("NULL", "'NULL' is \"NULL\", expected a condition"),
        ("(quality > 1, true)", "expected a condition that is true or false"),
        ("quality > 1, true", "expected a condition that is true or false"),
        ("quality >", "is not an SQL expression: "),
        ("", "'' is not an SQL expression: "),
        ("quality > 1; DROP TABLE judged", "is not an SQL expression: "),
        ("quality > 1; SELECT 1", "is not an SQL expression: "),
        ("quality > 1) OR (true", "is not an SQL expression: "),
        ("quality > 1 -- of course", "'quality > 1 -- of course': Parser Error: "),
        ("quality > 1 FROM stored", "'quality > 1 FROM stored': Parser Error: "),
        ("quality > 1 AS good", "'quality > 1 AS good': Parser Error: "),
        ("no_such_function(quality)", "Catalog Error: "),
        ("quality + topic > 1", "'quality + topic > 1': "),
        ("quality > (SELECT 1)", "holds a subquery; expected one document's columns only"),
        ("EXISTS (SELECT * FROM read_text('/etc/passwd'))", "holds a subquery"),
        ("quality > avg(quality) OVER ()", "holds a window function"),
        ("avg(quality) > 1", "WHERE clause cannot contain aggregates"),
        ("COLUMNS('quality') > 1", "holds a star"),
        ("quality > ?", "holds a parameter"),
        ("len(list_filter([quality], lambda x: x > 1)) > 0", "holds a lambda"),
        ("random() < 0.5", "random() gives another answer each time; a selection must not"),
        ("created > now()", "now() gives another answer each time"),
    ],
)
def test_condition_is_refused(expression, message):
    found = refused(where={"good": "quality > 0", "bad": expression})
    assert found.startswith("select.0.where.bad: ")
    assert message in found


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("topic", "'topic' is VARCHAR, expected a number"),
        ("quality > 1", "'quality > 1' is BOOLEAN, expected a number"),
        ("exact_duplicate_hash", "is UUID, expected a number"),
        ("created", "is TIMESTAMP WITH TIME ZONE, expected a number"),
        ("[quality]", "is DOUBLE[], expected a number"),
        ("created::DATE", "is DATE, expected a number"),
        ("neutral", "neutral has no better end; say `direction: highest` or `direction: lowest`"),
        (" Neutral ", "neutral has no better end; say `direction: highest` or `direction: lowest`"),
        ("num_chars", "num_chars has no better end"),
        ("badnes", "did you mean 'badness'?"),
    ],
)
def test_key_is_refused(expression, message):
    for step, rule in {
        "top": {"by": expression, "keep": 1},
        "quota": {"by": expression, "keep": {"web": 1}},
    }.items():
        found = refused(**{step: rule})
        assert found.startswith(f"select.0.{step}.by: ")
        assert message in found
    found = refused(deduplicate={"then": expression})
    assert found.startswith("select.0.deduplicate.then: ")
    assert message in found


def test_tokens_want_a_scorer_that_counts_them():
    for step, rule in {
        "top": {"by": "exact_duplicate_hash", "keep": 1, "of": "tokens"},
        "sample": {"keep": 1, "of": "tokens"},
        "quota": {"keep": {"web": 1}, "of": "tokens"},
    }.items():
        assert refused(scorers=(ExactDuplicate(),), **{step: rule}) == (
            f"select.0.{step}.of: no scorer makes 'num_tokens', so tokens cannot be counted"
        )


def test_deduplicate_wants_a_scorer_that_marks_duplicates():
    assert refused(scorers=(Numbers(),), deduplicate={}) == (
        "select.0.deduplicate: nothing marks duplicates; add exact_duplicate to `score`, or minhash and a "
        "`duplicates` section"
    )


def test_thin_wants_a_scorer_that_hashes():
    assert refused(thin={"within": "host"}) == (
        "select.0.thin: no scorer makes simhash; add simhash to `score`"
    )


@pytest.mark.parametrize(
    ("thin", "message"),
    [
        ({"within": "hots"}, ".within: no column 'hots' is stored; allowed: "),
        ({"within": "hots"}, "did you mean 'host'?"),
        ({"within": "host; DROP TABLE judged"}, ".within: no column 'host; DROP TABLE judged' is stored"),
        ({"within": "gopher_pass"}, ".within: no column 'gopher_pass' is stored"),
        (
            {"within": "quality"},
            ".within: quality is double, expected a column of values that documents share, such as host or source",
        ),
        ({"within": "host", "prefer": ["wbe"]}, ".prefer: no input has the source 'wbe'"),
        ({"within": "host", "then": "topic"}, ".then: 'topic' is VARCHAR, expected a number"),
        ({"within": "host", "then": "neutral"}, ".then: neutral has no better end"),
    ],
)
def test_thinning_is_refused(thin, message):
    found = refused((*ALL, SimHash()), thin=thin)
    assert found.startswith("select.0.thin.")
    assert message in found


def test_thinning_reads_its_group_and_its_hash():
    found = compiled((*ALL, SimHash()), thin={"within": "year", "then": "badness"})
    assert found.columns == ("badness", "simhash", "simhash_num_shingles", "source", "year")
    assert found.reads(SimHash())
    assert found.selection.thin.max_distance == 6


def test_unknown_source_is_refused():
    assert refused(deduplicate={"prefer": ["books", "wbe"]}) == (
        "select.0.deduplicate.prefer: no input has the source 'wbe'; allowed: books, web; did you mean 'web'?"
    )
    assert refused(quota={"keep": {"code": 1}}).startswith(
        "select.0.quota.keep: no input has the source 'code'"
    )
    from_field = Recipe(workspace="/w", corpus=[{"path": "/a", "source": "web", "source_field": "source"}])
    assert compiled(recipe=from_field, quota={"keep": {"code": 1}}).budgets[0].keep == {"code": 1}


def test_direction_without_a_score_is_refused():
    assert refused(quota={"keep": {"web": 1}, "direction": "lowest"}) == (
        "select.0.quota.direction: 'lowest' without `by`; say of which score"
    )


def test_keys_turn_so_that_lower_is_better():
    def key(**top):
        return compiled(top={"keep": "1/2", **top}).budgets[0].key

    assert key(by="quality") == "-((quality)::DOUBLE)"
    assert key(by="quality", direction="lowest") == "(quality)::DOUBLE"
    assert key(by="badness") == "(badness)::DOUBLE"
    assert key(by="badness", direction="highest") == "-((badness)::DOUBLE)"
    assert key(by="quality - badness") == "-((quality - badness)::DOUBLE)"
    assert key(by="neutral", direction="lowest") == "(neutral)::DOUBLE"


def test_budgets_come_in_order_with_their_units():
    budgets = compiled(
        quota={"keep": {"web": 5}, "of": "characters"},
        sample={"keep": "10%"},
        top={"by": "quality", "keep": 0.25, "of": "tokens"},
    ).budgets
    assert budgets == (
        Budget("quota", "quota_key", "num_chars", "characters", {"web": 5}),
        Budget("sample", "sample_key", "1", "documents", {None: Fraction(1, 10)}),
        Budget("top", "-((quality)::DOUBLE)", "num_tokens", "tokens", {None: Fraction(1, 4)}),
    )


def test_rule_sets_are_columns_when_their_features_are_scored():
    found = compiled(where={"gopher": "gopher_pass and not c4_pass"})
    assert "gopher_word_count" in found.columns
    assert "c4_num_sentences_3_words" in found.columns
    assert "gopher_pass" not in found.columns
    assert found.expanded == {name: sql.rule_sets()[name] for name in ("gopher_pass", "c4_pass")}
    assert "no scorer of this recipe makes column 'gopher_pass'" in refused(
        (Numbers(),), where={"g": "gopher_pass"}
    )


def test_columns_are_those_the_expressions_read():
    found = compiled(
        where={"a": "Quality > 1"},
        deduplicate={"then": "badness"},
        top={"by": "neutral + 1", "keep": 1, "of": "tokens"},
    )
    expected = ("badness", "exact_duplicate_hash", "neutral", "num_tokens", "quality", "source")
    assert found.columns == expected
    assert compiled(where={"a": "true"}).columns == ("source",)


def test_macros_are_usable_with_other_thresholds():
    expression = (
        "c4_passes(c4_num_sentences_3_words, c4_num_lorem_ipsum_lines_3_words, 0, min_sentences := 2)"
    )
    assert "c4_num_sentences_3_words" in compiled(where={"c4": expression}).columns


def test_sources_are_quoted():
    assert quote("it's") == "'it''s'"
    recipe = Recipe(workspace="/w", corpus=[{"path": "/a", "source": "o'hara') --"}])
    found = compiled(recipe=recipe, deduplicate={"prefer": ["o'hara') --"]})
    assert (
        found.preference
        == "row(CASE WHEN source = 'o''hara'') --' THEN 0 ELSE 1 END, coalesce(0.0, 'inf'::DOUBLE))"
    )


def named(scorer_name, column_name):
    @dataclass(frozen=True, kw_only=True)
    class Named(Scorer):
        name: ClassVar[str] = scorer_name
        version: ClassVar[int] = 1

        @property
        def columns(self):
            return (Column(name=column_name, type=pa.float64(), description="", unit=""),)

        def score(self, batch):
            raise NotImplementedError

    return Named()


@pytest.mark.parametrize(
    "column",
    ["Perplexity", "my-score", "select", "order", "x y", "1st", "", 'x"; DROP TABLE t; --', "ünïcode"],
)
def test_names_that_cannot_stand_in_sql_are_refused(column):
    with pytest.raises(RecipeError, match="and no reserved word of SQL") as caught:
        score_columns([named("mine", column)])
    assert str(caught.value).startswith(
        f"score: 'mine' gives the name {column!r}, expected lower-case letters"
    )
    with pytest.raises(RecipeError, match="and no reserved word of SQL"):
        score_columns([named(column, "fine")])


@pytest.mark.parametrize(
    "column", ["source", "doc_id", "num_chars", "position", "gopher_pass", "quota_key", "verdict"]
)
def test_names_taken_by_others_are_refused(column):
    with pytest.raises(RecipeError, match=f"score: column '{column}' of mine exists already"):
        score_columns([named("mine", column)])


def test_two_scorers_may_not_make_one_column():
    with pytest.raises(RecipeError, match="score: column 'quality' of other exists already"):
        score_columns([Numbers(), named("other", "quality")])
