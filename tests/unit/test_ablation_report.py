"""What ablations tell: the multiplier by hand, and never a claim beyond what was trained."""

from dataclasses import asdict

import pytest

from gristmill.pipelines.ablation_report import Multiplier, Result, summarise, tokens_to_match
from gristmill.pipelines.plot_ablations import plot
from gristmill.pipelines.questions import Accuracy

MULTIPLES = [1, 2, 4, 8]
LOSSES = [3.0, 2.5, 2.4, 2.2]


@pytest.mark.parametrize(
    ("loss", "bound", "value"),
    [
        (3.0, "=", 1),
        (2.75, "=", 2**0.5),
        (2.5, "=", 2),
        (2.3, "=", 4 * 2**0.5),
        (2.2, "=", 8),
        (2.19, ">", 8),
        (3.01, "<", 1),
    ],
)
def test_multiplier_by_hand(loss, bound, value):
    found = tokens_to_match(loss, MULTIPLES, LOSSES)
    assert (found.bound, found.value) == (bound, pytest.approx(value))


def test_of_a_curve_that_rises_again_the_first_crossing_counts():
    assert tokens_to_match(2.5, MULTIPLES, [3.0, 2.0, 2.6, 1.9]).value == pytest.approx(2**0.5)
    assert tokens_to_match(2.0, MULTIPLES, [3.0, 3.0, 1.0, 3.0]) == Multiplier("=", pytest.approx(2 * 2**0.5))


def test_multipliers_in_words():
    assert [str(Multiplier(*found)) for found in (("=", 3.456), (">", 16), ("<", 1))] == [
        "3.46x", "> 16x", "< 1x",
    ]  # fmt: skip


def result(selection, seed, multiple, loss, right=0.5):
    tasks = {"piqa": Accuracy(100, right, 0.05, 0.5)}
    return Result(selection, seed, multiple, 1000 * multiple, 0.5, 2.0, loss, tasks, 1.0)


RESULTS = [
    result("random", 0, 1, 3.0), result("random", 0, 2, 2.0), result("good", 0, 1, 2.5, 0.6),
    result("random", 1, 1, 3.2), result("random", 1, 2, 2.2), result("good", 1, 1, 2.1, 0.8),
]  # fmt: skip


def test_seeds_are_summed_up():
    random, longer, good = summarise(RESULTS).comparisons
    assert (random.selection, random.multiple, random.bits_per_byte) == ("random", 1, pytest.approx(3.1))
    assert (longer.multiple, longer.multiplier, longer.num_tokens) == (2, None, 2000)
    assert good.bits_per_byte == pytest.approx(2.3)
    assert good.deviation == pytest.approx(0.4 / 2**0.5)
    assert good.multiplier.value == pytest.approx(2**0.8)
    assert good.multipliers == (Multiplier("=", pytest.approx(2**0.5)), Multiplier(">", 2))
    assert good.tasks["piqa"].accuracy == pytest.approx(0.7)
    row = summarise(RESULTS).table()[-1]
    assert row["random tokens to match"] == "1.74x"
    assert row["by seed"] == "1.41x, > 2x"
    assert row["bits per byte"] == "2.3000 ± 0.2828"


def test_one_seed_has_no_spread():
    row = summarise(RESULTS[:3]).table()[-1]
    assert row["bits per byte"] == "2.5000"


def test_results_come_back_from_json():
    assert Result.from_json({**asdict(RESULTS[0]), "identity": "x"}) == RESULTS[0]


def test_the_plot_is_the_same_bytes():
    drawn = plot(RESULTS)
    assert drawn == plot(RESULTS)
    assert drawn.startswith(b"<?xml")
    assert all(word in drawn.decode() for word in ("random", "good", "bits per byte"))
