"""Samples by loss: the weights are those of training, and the draw is one without replacement in their proportions."""

from fractions import Fraction
from math import isfinite

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mills import Numbers, Row, build
from pydantic import ValidationError

from gristmill.models.loss_weights import STRATEGIES, sampling_weights
from gristmill.pipelines.recipe_select import LossWeights
from gristmill.pipelines.sample_weights import FAVOURS, log_weight, sampling_key
from gristmill.pipelines.select_documents import BlockLists, select_documents
from gristmill.scorers.base import RecipeError

CONNECTION = duckdb.connect()
NUM_DRAWS = 20_000


def computed(expression, **columns):
    """The values of an SQL expression, float64[n]."""
    CONNECTION.register("rows", pa.table({name: pa.array(values) for name, values in columns.items()}))
    return CONNECTION.sql(f"SELECT {expression} AS value FROM rows").to_arrow_table()["value"].to_numpy()


@given(
    losses=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    function=st.sampled_from(sorted(FAVOURS)),
    temperature=st.floats(0.01, 100),
)
@example(losses=[2.5, 2.5], function="quadratic", temperature=1.0)
@example(losses=[0.0, 1e-7], function="lin_upper", temperature=0.4)
@settings(deadline=None, max_examples=50)
def test_weights_are_those_of_training(losses, function, temperature):
    losses = np.array(losses)
    weights = LossWeights(by="loss", function=function, temperature=temperature)
    logs = computed(log_weight(weights, "loss", float(losses.min()), float(losses.max())), loss=losses)
    found = np.exp(logs - logs.max())
    expected = sampling_weights(losses, function, temperature)
    np.testing.assert_allclose(found / found.sum(), expected, rtol=1e-9, atol=1e-15)


def test_functions_are_those_of_training():
    assert FAVOURS.keys() == STRATEGIES.keys()


@given(
    losses=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=10),
    function=st.sampled_from(sorted(FAVOURS)),
    uniform=st.sampled_from([0.0, 2.0**-53, 0.5, 1 - 2.0**-53]),
)
@settings(deadline=None)
def test_keys_are_finite(losses, function, uniform):
    weights = LossWeights(by="loss", function=function, temperature=0.001)
    keys = computed(sampling_key(weights, "loss", str(uniform), min(losses), max(losses)), loss=losses)
    assert all(map(isfinite, keys))


def test_the_first_of_a_sample_is_drawn_by_weight():
    losses = [1.0, 2.0, 3.0, 5.0]
    weights = LossWeights(by="loss", temperature=0.5)
    uniform = np.random.default_rng(0).random((NUM_DRAWS, len(losses)))
    keys = [
        computed(sampling_key(weights, "loss", "u", 1.0, 5.0), loss=np.full(NUM_DRAWS, loss), u=column)
        for loss, column in zip(losses, uniform.T, strict=True)
    ]
    shares = np.bincount(np.argmin(keys, axis=0), minlength=4) / NUM_DRAWS
    expected = sampling_weights(np.array(losses), "lin_upper", 0.5)
    np.testing.assert_allclose(shares, expected, atol=4 * 0.5 / NUM_DRAWS**0.5)


def test_a_column_may_be_the_weight_itself():
    weights = LossWeights(by="p", function="proportional")
    logs = computed(log_weight(weights, "p", 0.0, 0.6), p=np.array([0.6, 0.3, 0.1, 0.0]))
    np.testing.assert_allclose(np.exp(logs), [0.6, 0.3, 0.1, 0.0], atol=1e-12)
    uniform = np.array([0.5, 0.5, 0.5, 0.0])
    keys = computed(sampling_key(weights, "p", "u", 0.0, 0.6), p=np.array([0.6, 0.3, 0.1, 0.0]), u=uniform)
    assert np.argsort(keys).tolist() == [0, 1, 2, 3]


def test_without_replacement_the_second_is_drawn_from_the_rest():
    weights = np.array([4.0, 2.0, 1.0])
    uniform = np.random.default_rng(1).random((NUM_DRAWS, 3))
    exponential = computed(sampling_key(LossWeights(by="loss"), "0.0", "u", 0.0, 0.0), u=uniform.ravel())
    order = np.argsort(exponential.reshape(-1, 3) - np.log(weights), axis=1)
    second = np.bincount(order[order[:, 0] == 0][:, 1], minlength=3)
    assert second[1] / second.sum() == pytest.approx(2 / 3, abs=0.02)


def kept(mill, **sample):
    compiled = mill.compile(sample=sample)
    funnel = select_documents(mill.workspace, mill.shards, mill.scorers, compiled, BlockLists())
    tables = [pq.read_table(mill.workspace.decisions("s", shard.name)) for shard in mill.shards]
    return funnel, [row for table in tables for row in table.to_pylist()]


@pytest.fixture(scope="module")
def mill(tmp_path_factory):
    """Losses from 1 to 4 in `quality`, 500 documents of each; 0 / 0 and nothing at all for two more."""
    rows = [Row(number, f"{number % 4 + 1} 1 0 {number % 7}\n{number}") for number in range(2000)]
    rows += [Row(2000, "1 0 0 1\nno ratio"), Row(2001, "2 1 0 1\nno year")]
    return build(tmp_path_factory.mktemp("mill"), [rows[:900], rows[900:]], (Numbers(),))


def test_high_losses_are_sampled_more_often_and_the_budget_is_exact(mill):
    weights = {"by": "quality", "function": "lin_upper", "temperature": 0.5}
    (*_, step), rows = kept(mill, keep="1/2", weights=weights)
    counts = np.bincount([number % 4 for number, row in enumerate(rows[:2000]) if row["kept"]], minlength=4)
    assert step.num_kept == 1001
    assert counts[0] < counts[1] - 50 < counts[2] - 100
    assert abs(counts[2] - counts[3]) < 60  # the upper half weighs alike
    assert sum(row["reason"] == "sample" for row in rows) == 1001


def test_tokens_are_counted_exactly(mill):
    _, rows = kept(mill, keep=1000, of="tokens", weights={"by": "quality", "function": "extremes"})
    total = sum(number % 7 for number, row in enumerate(rows[:2000]) if row["kept"])
    assert 1000 <= total + sum(row["kept"] for row in rows[2000:]) < 1007


def test_equal_losses_sample_as_no_weights_do(mill):
    _, weighted = kept(mill, keep="1/3", seed=5, weights={"by": "num_chars * 0"})
    _, plain = kept(mill, keep="1/3", seed=5)
    assert weighted == plain


def test_a_document_without_a_loss_is_dropped_and_says_so(mill):
    weights = {"by": "badness / badness"}
    _, rows = kept(mill, keep=Fraction(1), weights=weights)
    assert [row["reason"] for row in rows[2000:]] == ["missing:sample", None]
    _, rows = kept(mill, keep=Fraction(1), weights={"by": "year"})
    assert {row["reason"] for row in rows} == {"missing:year"}


def test_other_weights_choose_anew(mill):
    chosen = [kept(mill, keep="1/2", weights={"by": "quality", "temperature": r})[1] for r in (0.1, 1.0, 0.1)]
    assert chosen[0] == chosen[2] != chosen[1]


def test_weights_want_a_number(mill):
    with pytest.raises(
        RecipeError, match=r"select\.sample.weights\.by: 'topic' is VARCHAR, expected a number"
    ):
        mill.compile(sample={"keep": 1, "weights": {"by": "topic"}})
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.001"):
        LossWeights(by="quality", temperature=0)
