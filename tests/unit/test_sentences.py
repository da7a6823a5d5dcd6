"""Sentences: where they are cut, and that nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.scorers.sentences import cut_sentences
from gristmill.scorers.text import TextBatch


def sentences(*texts):
    spans = cut_sentences(TextBatch.from_texts(texts))
    joined = "\n" + "\n".join(texts) + "\n"
    found = [joined[start:end] for start, end in zip(spans.starts, spans.ends, strict=True)]
    return [found[start:end] for start, end in zip(spans.splits[:-1], spans.splits[1:], strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("No end", ["No end"]),
        ("  One.  Two! \nThree", ["  One.  ", "Two! \n", "Three"]),
        ('He said "no." Then he left...', ['He said "no." ', "Then he left..."]),
        ("At 3.5 km. J. Miller saw it?! Yes.", ["At 3.5 km. ", "J. Miller saw it?! ", "Yes."]),
        ("Title\nText goes on. ", ["Title\nText goes on. "]),
        ("河が溢れた。粉屋は働く。", ["河が溢れた。", "粉屋は働く。"]),
    ],
)
def test_a_sentence_keeps_the_white_space_after_it(text, expected):
    assert sentences(text) == [expected]


def test_sentences_do_not_cross_documents():
    assert sentences("One. ", "", " Two.", "Three. Four") == [["One. "], [], [" Two."], ["Three. ", "Four"]]


@given(st.lists(st.text(st.sampled_from('aA. !?\n"。é'), max_size=30), max_size=6))
def test_sentences_end_to_end_are_the_text(texts):
    found = sentences(*texts)
    assert ["".join(parts) for parts in found] == texts
    assert all(part for parts in found for part in parts)
