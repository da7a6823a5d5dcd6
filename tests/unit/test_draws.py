"""Draws of a subset that take turns in the feed: each goes on where it was, through kills and checkpoints."""

import json
from itertools import chain

import pytest
from feeds import batches_with_kills, global_batches, heads
from hypothesis import given, settings
from hypothesis import strategies as st
from token_folders import write_rows
from torch.utils.data import DataLoader

from gristmill.pipelines import feed as feed_module
from gristmill.pipelines.feed import TokenFeed


@pytest.fixture(scope="module")
def draws(tmp_path_factory):
    sizes = {"a": 40, "b": 30, "c": 50}
    folder = tmp_path_factory.mktemp("draws")
    return [
        write_rows(folder / name, [size], identity=name, first=1000 * number)
        for number, (name, size) in enumerate(sizes.items())
    ]


def test_draws_take_turns_and_each_goes_on_where_it_was(draws):
    stream = iter(TokenFeed(draws, batch_size=4, refresh=3, epochs=None))
    batches = heads(next(stream) for _ in range(30))
    assert [{row // 1000 for row in batch} for batch in batches[:12]] == [
        *[{0}] * 3,
        *[{1}] * 3,
        *[{2}] * 3,
        *[{0}] * 3,
    ]
    for number, draw in enumerate(draws):
        alone = chain(*heads(TokenFeed(draw, batch_size=2, epochs=2)))
        mine = [row for batch in batches for row in batch if row // 1000 == number]
        assert mine == list(alone)[: len(mine)]
        assert len(mine) >= 36


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=2), st.permutations([1, 2, 3]))
def test_kills_and_other_world_sizes_change_no_draw(draws, cuts, world_sizes):
    options = {"batch_size": 6, "epochs": None, "seed": 5, "refresh": 7}
    expected, _ = global_batches(draws, 90, **options)
    stops = zip(world_sizes, [*cuts, 90 - sum(cuts)], strict=True)
    assert batches_with_kills(draws, stops, **options) == expected


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_divide_the_batches_of_every_draw(draws, num_workers, monkeypatch):
    monkeypatch.setattr(feed_module, "PLANNED_SAMPLES", 50)
    options = {"batch_size": 4, "refresh": 3, "epochs": 2}
    one = heads(TokenFeed(draws, **options))
    feed = TokenFeed(draws, **options)
    assert heads(DataLoader(feed, batch_size=None, num_workers=num_workers)) == one
    feed.load_state_dict(feed.state_after(10))
    assert heads(DataLoader(feed, batch_size=None, num_workers=num_workers)) == one[10:]


def test_the_stream_of_draws_ends_where_one_is_used_up(draws):
    batches = heads(TokenFeed(draws, batch_size=10, refresh=2))
    assert [batch[0] // 1000 for batch in batches] == [0, 0, 1, 1, 2, 2, 0, 0, 1], "30 rows of the second"


def test_a_draw_is_added_at_a_checkpoint(draws):
    first = TokenFeed(draws[:2], batch_size=5, refresh=2, epochs=None)
    stream = iter(first)
    before = heads(next(stream) for _ in range(6))
    assert [batch[0] // 1000 for batch in before] == [0, 0, 1, 1, 0, 0]
    more = TokenFeed(draws, batch_size=5, refresh=2, epochs=None)
    more.load_state_dict(json.loads(json.dumps(first.state_dict())))
    stream = iter(more)
    after = heads(next(stream) for _ in range(6))
    assert [batch[0] // 1000 for batch in after] == [0, 0, 1, 1, 2, 2]
    rows = [row for batch in before + after for row in batch if row < 1000]
    assert rows == list(chain(*heads(TokenFeed(draws[0], batch_size=5))))[: len(rows)]


def test_draws_have_no_weights_and_a_mixture_has(draws):
    for datasets, options, message in (
        (
            draws,
            {},
            r"found 3 datasets, 3 of them without a weight; expected \(folder, weight\) of each, or `ref",
        ),
        (
            [(draw, 1) for draw in draws],
            {"refresh": 5},
            "refresh 5; expected at least 1 batch, and folders without",
        ),
        (draws, {"refresh": 0}, "refresh 0; expected at least 1 batch"),
        ([*draws, draws[0]], {"refresh": 5}, "holds the same tokens twice"),
    ):
        with pytest.raises(ValueError, match=message):
            TokenFeed(datasets, batch_size=8, **options)
