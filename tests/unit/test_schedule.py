"""Learning-rate schedules and forks: values by hand, and a longer training that goes on as if it had begun alone."""

import shutil

import numpy as np
import pyarrow as pa
import pytest

from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.schedule import Cosine, WarmupStableDecay
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import CHECKPOINT, FORK, TrainingPlan, plan_steps, train

TEXTS = [f"the miller grinds {number} sacks of corn and keeps a tenth of the flour" for number in range(60)]


def test_warmup_stable_decay_by_hand():
    schedule = WarmupStableDecay(warmup_steps=2, decay_share=0.3)
    shares = [schedule.share(step, 10) for step in range(10)]
    assert shares == [0.5, *[1.0] * 6, 0.75, 0.5, 0.25]
    assert schedule.decay_start(10) == 7


def test_a_longer_training_takes_the_same_steps_until_the_shorter_decays():
    schedule = WarmupStableDecay(warmup_steps=3)
    start = schedule.decay_start(20)
    assert [schedule.share(step, 20) for step in range(start)] == [
        schedule.share(step, 80) for step in range(start)
    ]


def test_cosine_by_hand():
    schedule = Cosine(warmup_share=0.2)
    assert [schedule.share(step, 10) for step in range(2)] == [0.5, 1.0]
    assert schedule.share(2, 10) == 1.0
    assert schedule.share(6, 10) == pytest.approx(0.55)
    assert schedule.share(10, 10) == pytest.approx(0.1)


def test_a_number_of_steps_crosses_epochs_and_a_shorter_plan_is_a_beginning():
    plan = TrainingPlan(seed=3, num_steps=9)
    steps = plan_steps(10, 4, plan)
    assert [len(step) for step in steps] == [4] * 9
    seen = np.concatenate(steps)
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))
    shorter = plan_steps(10, 4, TrainingPlan(seed=3, num_steps=4))
    assert np.array_equal(shorter, steps[:4])


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, 300)


def trained(tokenizer, folder, num_steps, fork_after=None):
    model = LanguageModel.make(Architecture(1, 8, 2, context=16), tokenizer, seed=1)
    tokens = tokenizer.encode(pa.array(TEXTS, pa.large_string())).tokens
    plan = TrainingPlan(
        batch_tokens=64, learning_rate=1e-2, schedule=WarmupStableDecay(2), seed=5, num_steps=num_steps
    )
    log = train(model, tokens, plan, folder, lambda row, num_steps: None, fork_after=fork_after)
    return log, {name: weight.detach().numpy() for name, weight in model.model.named_parameters()}


def test_a_training_from_a_fork_is_the_one_from_scratch(tokenizer, tmp_path):
    short, long, alone = (tmp_path / name for name in ("short", "long", "alone"))
    for folder in (short, long, alone):
        folder.mkdir()
    trained(tokenizer, short, 10, fork_after=8)
    shutil.copyfile(short / FORK, long / CHECKPOINT)
    log, weights = trained(tokenizer, long, 20)
    expected_log, expected = trained(tokenizer, alone, 20)
    assert [(row.loss, row.learning_rate, row.num_tokens) for row in log] == [
        (row.loss, row.learning_rate, row.num_tokens) for row in expected_log
    ]
    for name, weight in weights.items():
        assert np.array_equal(weight, expected[name]), name
