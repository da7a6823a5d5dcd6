"""What logits mean, by a model's configuration and what a recipe adds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.models.logits import meaning_of
from gristmill.models.rater import RaterError, Reading

LOGITS = np.log([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]]) + 7


def config(*labels, problem_type=None):
    return {"id2label": {str(number): label for number, label in enumerate(labels)}} | (
        {"problem_type": problem_type} if problem_type else {}
    )


def test_numbered_classes_are_worth_their_numbers():
    found = meaning_of(config("LABEL_0", "LABEL_1", "LABEL_2"), Reading())
    assert found.outputs.classes == (0, 1, 2)
    ratings = found.ratings(LOGITS)
    np.testing.assert_allclose(ratings.probabilities, [[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(ratings.values, [[1.3], [0.5]], rtol=1e-6)
    assert meaning_of(config("1", "2.5", "-4"), Reading()).outputs.classes == (1, 2.5, -4)


def test_a_configuration_that_names_no_labels_has_those_of_transformers():
    assert meaning_of({}, Reading()).outputs.classes == (0, 1)
    assert meaning_of({"num_labels": 6}, Reading()).outputs.classes == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("label", ["spam", 1])
def test_the_label_that_counts_is_worth_one(label):
    found = meaning_of(config("ham", "spam", "unknown"), Reading(label=label))
    assert (found.outputs.names, found.outputs.classes) == (("spam",), (0, 1, 0))
    np.testing.assert_allclose(found.ratings(LOGITS).values, [[0.3], [0.3]], rtol=1e-6)


def test_several_labels_at_once():
    labels = config("toxic", "threat", "insult", problem_type="multi_label_classification")
    every = meaning_of(labels, Reading())
    assert every.outputs.names == ("toxic", "threat", "insult")
    assert every.outputs.classes is None
    ratings = every.ratings(np.array([[0, np.log(3), -1e5]]))
    assert ratings.probabilities is None
    np.testing.assert_allclose(ratings.values, [[0.5, 0.75, 0]], rtol=1e-6)
    one = meaning_of(labels, Reading(label="threat"))
    np.testing.assert_allclose(one.ratings(np.array([[0, np.log(3), 0]])).values, [[0.75]], rtol=1e-6)


def test_one_logit_is_a_regression_and_several_where_the_configuration_or_recipe_says_so():
    for labels, reading in (
        (config("LABEL_0"), Reading()),
        (config("a", problem_type="regression"), Reading()),
    ):
        np.testing.assert_array_equal(
            meaning_of(labels, reading).ratings(LOGITS[:, :1]).values, LOGITS32[:, :1]
        )
    for labels, reading in (
        (config("a", "b", "c", problem_type="regression"), Reading()),
        (config("a", "b", "c"), Reading(head="regression")),
    ):
        found = meaning_of(labels, reading)
        assert found.outputs.names == ("a", "b", "c")
        np.testing.assert_array_equal(found.ratings(LOGITS).values, LOGITS32)
    chosen = meaning_of(config("a", "b", "c"), Reading(head="regression", label="b"))
    np.testing.assert_array_equal(chosen.ratings(LOGITS).values, LOGITS32[:, 1:2])


LOGITS32 = LOGITS.astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "reading", "message"),
    [
        (config("ham", "spam"), Reading(), "its classes are ham, spam, which have no worth; say `label`"),
        (
            config("ham", "spam"),
            Reading(label="Spam"),
            "found the label 'Spam'; expected one of ham, spam, or a",
        ),
        (config("ham", "spam"), Reading(label=2), "found the label 2; .* or a number from 0 to 1"),
        (config("ham", "spam"), Reading(label=-1), "found the label -1"),
        (
            config("LABEL_0"),
            Reading(head="classes"),
            "one logit tells no classes apart; say `head: regression`",
        ),
        ({"id2label": {"1": "a", "2": "b"}}, Reading(), "expected a name for each logit from 0 up"),
        ({"id2label": ["a", "b"]}, Reading(), "expected a name for each logit from 0 up"),
    ],
)
def test_unclear_meanings_are_refused(labels, reading, message):
    with pytest.raises(RaterError, match=message):
        meaning_of(labels, reading)


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6), min_size=1, max_size=5))
def test_expectations_lie_between_the_worst_and_the_best_class(rows):
    ratings = meaning_of({"num_labels": 6}, Reading()).ratings(np.array(rows))
    assert ((ratings.values >= 0) & (ratings.values <= 5)).all()
    np.testing.assert_allclose(ratings.probabilities.sum(axis=1), 1, rtol=1e-5)
