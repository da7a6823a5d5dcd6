"""What mixtures tell: a critical ratio that is known, its bounds, and nothing beyond what was trained."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from gristmill.pipelines.mixture_report import Observation, Result, result_path, summarise
from gristmill.pipelines.plot_mixtures import plot
from gristmill.scorers.base import QueryError

RATIOS = ["1/8", "1/4", "1/3", "1/2", "3/4"]
TOKENS = [round(tokens) for tokens in np.geomspace(5_000, 100_000, 8)]


def rise(share, tokens):
    """The general loss has risen by 0.05 where share = 0.6 * (tokens / 100,000) ** -0.1."""
    return 0.05 * (share / (0.6 * (tokens / 100_000) ** -0.1)) ** 2


def result(ratio, rises=rise):
    numerator, denominator = map(int, ratio.split("/"))
    share = numerator / denominator
    observations = [Observation(0, 4.0, 3.0, 0.0)]
    observations += [
        Observation(tokens, 4.0 - share * (tokens / 100_000) ** 0.3, 3.0 + rises(share, tokens), 0.01)
        for tokens in TOKENS
    ]
    return Result("books", ratio, 1.5, 0.5, 10.0, tuple(observations))


RESULTS = [result(ratio) for ratio in RATIOS]


@pytest.fixture(scope="module")
def report():
    return summarise(RESULTS, 0.05)


def test_the_critical_ratio_is_the_one_that_was_planted(report):
    assert [row.num_tokens for row in report.critical] == TOKENS
    for row in report.critical:
        planted = 0.6 * (row.num_tokens / 100_000) ** -0.1
        if planted < 0.75:
            assert (row.found.bound, row.found.ratio) == ("=", pytest.approx(planted, abs=1e-3))
        else:
            assert (row.found.bound, row.found.ratio) == (">", 0.75)
        assert row.found.error < 1e-6
    assert {row.found.bound for row in report.critical} == {"=", ">"}


def test_each_ratio_says_what_it_costs(report):
    assert [curve.is_feasible for curve in report.curves] == [True, True, True, True, False]
    half = report.curves[3]
    assert (half.domain_change, half.general_change) == (
        pytest.approx(-0.5),
        pytest.approx(0.05 * (5 / 6) ** 2),
    )
    assert half.domain_law.exponents[0] == pytest.approx(0.3, abs=0.01)
    assert half.domain_law.error < 1e-4
    row = report.table()[3]
    assert (row["domain share"], row["tokens"], row["domain loss"]) == ("1/2", 100_000, "-0.5000")
    assert (row["general loss"], row["feasible"]) == ("+0.0347 ± 0.0100", True)
    assert report.critical_table()[0]["critical ratio"] == "> 0.75"


def test_another_length_is_told_by_the_law(report):
    assert report.law.error < 1e-3
    assert report.at(60_000).startswith("at 60,000 tokens: 0.631 by the law")


@pytest.mark.parametrize("num_tokens", [100_001, 10_000_000, 5_000])
def test_nothing_is_said_beyond_the_observed_lengths(report, num_tokens):
    with pytest.raises(
        QueryError, match=rf"at {num_tokens:,} tokens: .*observed from .* to 100000; expected"
    ):
        report.at(num_tokens)


def test_the_verdict_names_length_and_error(report):
    said = "at 100,000 tokens the critical ratio of books is 0.6 (epsilon 0.05 nats, fit error 0.0000); "
    assert report.verdict() == said + "nothing is claimed beyond"


@pytest.mark.parametrize(("level", "bound", "ratio"), [(0.2, "<", 1 / 8), (-0.2, ">", 3 / 4)])
def test_where_no_ratio_is_critical_there_is_a_bound_and_no_law(level, bound, ratio):
    report = summarise([result(ratio, lambda share, tokens: level + 0.01 * share) for ratio in RATIOS], 0.05)
    assert {(row.found.bound, row.found.ratio) for row in report.critical} == {(bound, ratio)}
    assert report.law is None
    assert f"{bound} {ratio:.3g}" in report.verdict()
    with pytest.raises(
        QueryError, match="0 observed lengths have a critical ratio among those trained; expected"
    ):
        report.at(50_000)


def test_results_come_back_from_json():
    content = json.loads(json.dumps({**asdict(RESULTS[0]), "identity": "x"}))
    assert Result.from_json(content) == RESULTS[0]
    assert result_path("1/8") == ("mixtures", "ratio-1-8.json")


def test_the_plot_is_the_same_bytes(report):
    drawn = plot(RESULTS, report)
    assert drawn == plot(RESULTS, report)
    assert all(word in drawn.decode() for word in ("domain share", "1/8", "loss of books"))
