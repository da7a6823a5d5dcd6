"""Labels of the demo's raters: a formula, and damage done on purpose."""

import pytest

from gristmill.pipelines.demo_labels import (
    MAX_TEXTS,
    labelled_texts,
    long_enough,
    points,
    reading_grade,
    spoil,
)

TEXT = "The mill grinds the corn. " * 5


def test_the_grade_is_the_automated_readability_index():
    # 5 words of 21 characters a sentence.
    assert reading_grade(TEXT) == pytest.approx(4.71 * 21 / 5 + 0.5 * 5 - 21.43)
    assert reading_grade("no end") == pytest.approx(4.71 * 5 / 2 + 0.5 * 2 - 21.43)


@pytest.mark.parametrize(("grade", "expected"), [(-3, 5), (0, 5), (8, 3), (20, 0), (40, 0)])
def test_lower_grades_have_more_points(grade, expected):
    assert points(grade) == expected


def test_words_are_parted_and_remnants_put_between():
    assert spoil("a b\nc d miller f g h i j") == "a b\nc d mil ler f g h i &nbsp; j"


def test_every_text_stands_as_it_is_and_spoiled():
    clean, spoiled = labelled_texts([("mill", TEXT), ("short", "the mill")])
    assert (clean["text"], clean["cleanliness"]) == (TEXT, 5)
    assert (spoiled["text"], spoiled["cleanliness"]) == (spoil(TEXT), 0)
    assert clean["readability"] == spoiled["readability"] == round(points(reading_grade(TEXT)), 2)
    assert clean["id"] == spoiled["id"] == "mill"


def test_many_texts_are_thinned():
    found = long_enough((str(number), TEXT) for number in range(2 * MAX_TEXTS + 1))
    assert [name for name, _ in found[:2]] == ["0", "2"]
    assert len(found) == MAX_TEXTS
