"""The target: records that are left out, questions joined with their answers, and samples by doc_id."""

import json

import pyarrow as pa
import pytest
from corpora import write_lines
from pydantic import ValidationError

from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_inputs import Target
from gristmill.pipelines.sample_texts import Sample, is_sampled, sample_texts, share_of
from gristmill.pipelines.target import answered, target_texts, target_workspace
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError

QUESTION = Target(path="q.jsonl", choices="options", answer="label")


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("What grinds corn?", 1, "What grinds corn? a mill"),
        ("A _ grinds corn.", 1, "A a mill grinds corn."),
        ("Corn is ground by _", "0", "Corn is ground by a horse"),
        ("_ and _", 1, "a mill and _"),
        ("snake_case grinds", 0, "snake_case grinds a horse"),
        ("a \\1 _", 1, "a \\1 a mill"),
    ],
)
def test_answers_fill_the_blank_or_follow(question, answer, expected):
    fields = {"options": ["a horse", "a mill"], "label": answer}
    assert answered(question, fields, QUESTION) == expected


def test_answers_that_are_numbers_or_lie_deeper():
    rule = Target(path="q.jsonl", choices="answers.text", answer="answers.right")
    assert answered("1 + 1 =", {"answers": {"text": [1, 2], "right": 1}}, rule) == "1 + 1 = 2"


@pytest.mark.parametrize("label", [2, -1, "", "A", None, 1.5, True])
@pytest.mark.parametrize("options", [["a", "b"], "ab", None])
def test_answers_that_are_not_there(label, options):
    with pytest.raises(
        RecipeError, match=r"target: q\.jsonl: a record has options=.* and label=.*; expected a list"
    ):
        answered("?", {"options": options, "label": label}, QUESTION)


@pytest.mark.parametrize(
    ("keys", "message"),
    [({"choices": "c"}, "choices and answer go together"), ({"source_field": "s"}, "leave it out")],
)
def test_impossible_targets(keys, message):
    with pytest.raises(ValidationError, match=message):
        Target(path="q.jsonl", **keys)


@pytest.fixture
def questions(ingest, tmp_path):
    """A target of two sources, ingested."""
    write_lines(
        tmp_path / "q.jsonl",
        {"text": "What grinds?", "options": ["mill", "horse"], "label": 0, "split": "train"},
        {"text": "What trots?", "options": ["mill", "horse"], "label": "1", "split": "train"},
        {"text": "What hides?", "options": ["mill", "horse"], "label": -1, "split": "test"},
    )
    write_lines(tmp_path / "plain.jsonl", "As it is, with a _.", {"text": "third", "split": "test"})
    return ingest(
        {"path": str(tmp_path / "q.jsonl"), "source": "questions"},
        {"path": str(tmp_path / "plain.jsonl"), "source": "plain"},
    )


def texts(corpus, entries):
    batches = target_texts(corpus.workspace, corpus.shards, entries)
    rows = [row for batch in batches for row in batch.to_pylist()]
    by_id = {row["doc_id"]: row["text"] for row in corpus.rows}
    assert all(row["doc_id"] in by_id for row in rows)
    return [row["text"] for row in rows]


def test_every_source_follows_its_own_rules(questions):
    asked = Target(path="q", source="questions", only={"split": "train"}, choices="options", answer="label")
    plain = Target(path="p", source="plain")
    assert texts(questions, [asked, plain]) == [
        "What grinds? mill",
        "What trots? horse",
        "As it is, with a _.",
        "third",
    ]
    only_plain = asked.model_copy(update={"only": {"source": "nothing"}})
    assert texts(questions, [only_plain, plain]) == ["As it is, with a _.", "third"]
    assert texts(questions, [Target(path="q", source="questions"), plain]) == questions.texts


def test_a_wrong_answer_stops_the_training(questions):
    asked = Target(path="q", source="questions", choices="options", answer="label")
    with pytest.raises(RecipeError, match="label=-1"):
        texts(questions, [asked, Target(path="p", source="plain")])


def test_another_target_lies_elsewhere():
    workspace = Workspace("/mill")
    first = Target(path="/a.jsonl")
    same = Target(path="/a.jsonl", licence="CC0", only={"split": "train"})
    others = [
        Target(path="/b.jsonl"),
        Target(path="/a.jsonl", text="body"),
        Target(path="/a.jsonl", source="x"),
    ]
    assert target_workspace(workspace, [first]) == target_workspace(workspace, [same])
    assert len({target_workspace(workspace, [entry]).root for entry in [first, *others]}) == 4


def test_a_recipe_with_one_target_or_many():
    recipe = {"workspace": "/w", "corpus": [{"path": "/c", "source": "c"}]}
    one = Recipe.model_validate(recipe | {"target": {"path": "/t"}})
    assert [entry.source for entry in one.target] == ["target"]
    with pytest.raises(ValidationError, match="the source of two entries"):
        Recipe.model_validate(recipe | {"target": [{"path": "/t"}, {"path": "/u"}]})


def test_a_sample_follows_doc_ids_alone(ingest, tmp_path):
    written = [json.dumps({"text": f"text {n}"}).encode() for n in range(300)]
    write_lines(tmp_path / "a.jsonl", *written)
    whole = ingest(str(tmp_path / "a.jsonl"))
    cut = ingest(str(tmp_path / "a.jsonl"), root=tmp_path / "cut", shard_bytes=1000)
    assert len(cut.shards) > 3
    sample = Sample(seed=3, low=0.2, high=0.5)

    def sampled(corpus, sample):
        return [
            text
            for texts in sample_texts(corpus.workspace, corpus.shards, sample)
            for text in texts.to_pylist()
        ]

    chosen = sampled(whole, sample)
    assert chosen == sampled(cut, sample)
    assert 60 <= len(chosen) <= 120
    parts = [sampled(whole, Sample(3, *bounds)) for bounds in ((0.0, 0.2), (0.2, 0.5), (0.5, 1.0))]
    assert sorted(text for part in parts for text in part) == sorted(whole.texts)
    assert sampled(whole, Sample(4, 0.2, 0.5)) != chosen
    (shard,) = whole.shards
    with pa.ipc.open_file(whole.workspace.corpus(shard.name)) as file:
        batch = file.get_batch(0)
    assert is_sampled(batch, Sample(3, 0.0, 1.0)).to_pylist() == [True] * len(batch)


def test_shares(ingest, tmp_path):
    write_lines(tmp_path / "a.jsonl", "1234567890", "1234567890")
    shards = ingest(str(tmp_path / "a.jsonl")).shards
    assert share_of(shards, 5) == 0.25
    assert share_of(shards, 1e9) == 1.0
    assert share_of([], 5) == 1.0
