"""Multiple-choice questions: likelihoods against transformers itself, and accuracy by hand."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from gristmill.models.continuations import continuation_losses
from gristmill.models.language_model import Architecture, LanguageModel
from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import questions
from gristmill.pipelines.questions import Questions, judge, split_answer

TEXTS = [
    "The mill stands at the river.",
    "Which stone is the upper one? the runner",
    "ä Mühle _ mahlt das Korn",
]
PAIRS = [
    ("The mill stands at", " the river."),
    ("The mill stands at", " the ocean, far away"),
    ("", " runner"),
    ("Which stone", "s"),
    ("Die Mühle mahlt " * 9, " das Korn und das Mehl"),
    ("a", " long answer that does not fit into the context of the model, not by far " * 2),
]


@pytest.fixture(scope="module")
def model():
    made = LanguageModel.make(Architecture(2, 16, 2, context=24), Tokenizer.train(TEXTS * 3, 300), seed=4)
    made.model.eval()
    return made


def strings(values):
    return pa.array(values, pa.large_string())


def slow_loss(model, prompt, continuation):
    """One text at a time, in float64, by the model's own logits."""
    tokenizer = model.tokenizer
    whole = tokenizer.encode(strings([prompt + continuation])).tokens.astype(np.int64)
    num_prompt = min(len(tokenizer.encode(strings([prompt])).tokens), len(whole) - 1)
    num_scored = len(whole) - num_prompt
    seen = whole[-model.context :]
    inputs = torch.tensor([[tokenizer.end_of_text, *seen[:-1]]])
    with torch.no_grad():
        logits = model.model.double()(input_ids=inputs).logits[0].log_softmax(-1)
    model.model.float()
    losses = -logits[torch.arange(len(seen)), torch.tensor(seen)].numpy()
    return losses[-num_scored:].sum()


def test_losses_are_those_of_transformers_one_by_one(model):
    found = continuation_losses(model, *(strings(part) for part in zip(*PAIRS, strict=True)))
    expected = [slow_loss(model, *pair) for pair in PAIRS]
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("question", "choice", "expected"),
    [
        ("Who grinds?", "the miller", ("Who grinds?", " the miller")),
        ("The _ grinds the corn.", "miller", ("The miller", " grinds the corn.")),
        ("Corn is ground by the _", "miller", ("Corn is ground by the", " miller")),
        ("a_b", "c", ("a_b", " c")),
    ],
)
def test_what_is_judged(question, choice, expected):
    assert split_answer(question, choice) == expected


def test_the_likeliest_a_byte_is_chosen(monkeypatch):
    asked = Questions(
        prompts=strings(["q"] * 5),
        continuations=strings([" ab", " abcd", " x", " ä", " yyy"]),
        offsets=np.array([0, 2, 5]),
        right=np.array([1, 0]),
    )
    losses = np.array([2.0, 3.0, 1.0, 1.0, 3.0])
    monkeypatch.setattr(questions, "continuation_losses", lambda *_: losses.copy())
    found = judge(None, asked)
    assert (found.num_questions, found.accuracy) == (2, 0.5)
    assert found.standard_error == pytest.approx((0.25 / 2) ** 0.5)
    assert found.chance == pytest.approx((1 / 2 + 1 / 3) / 2)
