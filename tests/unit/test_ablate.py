"""A tiny ablation from end to end: what it compares, what it does not train again, and how it goes on after a kill."""

import json
import random
from dataclasses import replace

import pytest
from click.testing import CliRunner

from gristmill.pipelines import ablate as ablation
from gristmill.pipelines.ablate import ablate
from gristmill.pipelines.catalog import open_catalog, run_query
from gristmill.pipelines.cli import main
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.prepare import prepare
from gristmill.pipelines.runner import beam_options
from gristmill.pipelines.verify import verify_workspace
from gristmill.pipelines.workspace import open_workspace
from gristmill.scorers.base import RecipeError

RECIPE = """
workspace: {root}/mill
corpus: [{{path: {root}/corpus.jsonl, source: web}}]
block: {{ids: [{root}/blocked.txt]}}
target: {{path: {root}/target.jsonl}}
models: {{tokenizer: {{vocab_size: 300}}}}
score: [rules]
select:
  - {{name: words, where: {{words: "rps_doc_frac_no_alph_words < 0.5"}}}}
  - {{name: digits, where: {{digits: "rps_doc_frac_no_alph_words >= 0.5"}}}}
ablate:
  context: 16
  batch_tokens: 128
  seeds: 2
  multiples: [1, 2]
  learning_rate: 0.01
  tasks: {{path: {root}/task.jsonl, source: mills, only: {{split: val}}}}
"""
WORDS = ["mill", "grain", "river", "wheel", "stone", "flour", "bread", "farmer", "harvest", "barn"]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A curated workspace: half of the documents are words, half are digits, and the target is words."""
    root = tmp_path_factory.mktemp("ablate")
    rng = random.Random(0)
    corpus = [
        {
            "id": str(number),
            "text": " ".join(
                rng.choice(WORDS) if number % 2 else str(rng.randrange(1000)) for _ in range(60)
            ),
        }
        for number in range(80)
    ]
    write(root / "corpus.jsonl", [*corpus, {"id": "empty", "text": " "}])
    write(root / "target.jsonl", [{"text": " ".join(rng.choices(WORDS, k=50))} for _ in range(60)])
    questions = [
        {
            "prompt": "the",
            "choices": [" ".join(rng.choices(WORDS, k=3)), "731 92 8"],
            "label": 0,
            "split": split,
        }
        for split in ("val", "train")
        for _ in range(20)
    ]
    write(root / "task.jsonl", questions)
    (root / "blocked.txt").write_text("3\n")
    (root / "recipe.yaml").write_text(RECIPE.format(root=root))
    curation(root).run(["ingest", "score", "select"])
    return root


def curation(root, *overrides):
    return prepare(load_recipe(str(root / "recipe.yaml"), overrides), beam_options([]))


@pytest.fixture(scope="module")
def report(root):
    return ablate(curation(root))


def test_words_teach_words(report):
    by_name = {(found.selection, found.multiple): found for found in report.comparisons}
    assert set(by_name) == {("random", 1), ("random", 2), ("words", 1), ("digits", 1)}
    words, digits = by_name["words", 1], by_name["digits", 1]
    assert words.bits_per_byte < by_name["random", 1].bits_per_byte < digits.bits_per_byte
    assert digits.multiplier.bound == "<"
    assert words.tasks["mills"].num_questions == 20
    assert words.tasks["mills"].accuracy > digits.tasks["mills"].accuracy
    assert words.num_tokens * 2 == by_name["random", 2].num_tokens
    assert len(words.multipliers) == 2
    assert words.epochs > 0.9


def test_curves_are_in_sql_and_in_files(root, report):
    connection = open_catalog(open_workspace(str(root / "mill")))
    rows = run_query(connection, "SELECT * FROM ablations").to_pylist()
    tasks = run_query(connection, "SELECT * FROM ablation_tasks").to_pylist()
    connection.close()
    assert len(rows) == len(tasks) == 8
    assert {(row["selection"], row["seed"], row["multiple"]) for row in rows} == {
        (name, seed, multiple)
        for name, multiple in (("random", 1), ("random", 2), ("words", 1), ("digits", 1))
        for seed in range(2)
    }
    folder = root / "mill" / "ablations"
    assert (folder / "curves.svg").read_text().startswith("<?xml")
    assert len(json.loads((folder / "summary.json").read_text())) == 4
    assert not list((root / "mill" / "models").glob(".tmp-*"))
    found = verify_workspace(open_workspace(str(root / "mill")))
    assert (found.problems, found.orphans) == ([], [])


def test_nothing_is_trained_twice(root, report, monkeypatch):
    monkeypatch.setattr(ablation.Ablation, "_train", None)
    assert ablate(curation(root)) == report


def test_the_command_prints_a_table(root, report):
    found = CliRunner().invoke(main, ["ablate", str(root / "recipe.yaml")])
    assert found.exit_code == 0, found.output
    assert "random tokens to match" in found.stdout
    assert "curves.svg" in found.stdout


def test_only_what_changed_is_trained(root, report, monkeypatch):
    trained = []
    train = ablation.Ablation._train

    def noted(self, name, *arguments):
        trained.append(name)
        return train(self, name, *arguments)

    monkeypatch.setattr(ablation.Ablation, "_train", noted)
    changed = curation(root, "select.1.sample={keep: 3/4}", "ablate.tokens=3000", "ablate.seeds=1")
    ablate(changed)
    first = list(trained)
    ablate(curation(root, "select.1.sample={keep: 4/5}", "ablate.tokens=3000", "ablate.seeds=1"))
    assert sorted(first) == ["digits", "random", "random", "words"]
    assert trained[len(first) :] == ["digits"]
    assert not list((root / "mill" / "ablations").glob("*/seed-1-*"))


class Killed(Exception):
    """Stands for the end of a process."""


def test_a_killed_ablation_goes_on(root, report, monkeypatch):
    """Killed after the first random training was committed; what comes out is what an undisturbed run gives."""
    settings = ["ablate.seeds=1", "ablate.learning_rate=0.02"]
    trained = []
    train = ablation.Ablation._train

    def killed(self, name, stream, seed, num_steps, multiple, folder):
        if (name, multiple) == ("random", 2):
            raise Killed
        return train(self, name, stream, seed, num_steps, multiple, folder)

    def noted(self, name, stream, seed, num_steps, multiple, folder):
        trained.append((name, multiple, (folder / "checkpoint.safetensors").is_file()))
        return train(self, name, stream, seed, num_steps, multiple, folder)

    monkeypatch.setattr(ablation.Ablation, "_train", killed)
    with pytest.raises(Killed):
        ablate(curation(root, *settings))
    monkeypatch.setattr(ablation.Ablation, "_train", noted)
    resumed = ablate(curation(root, *settings))
    assert trained == [("random", 2, True), ("words", 1, False), ("digits", 1, False)]
    for path in (root / "mill" / "ablations").glob("*/*.json"):
        path.unlink()
    again = ablate(curation(root, *settings))
    assert without_times(again) == without_times(resumed)


def without_times(report):
    return [replace(found, epochs=0) for found in report.comparisons]


def test_held_out_inputs_take_the_place_of_the_target(root, report):
    settings = [
        f"ablate.held_out={{path: {root}/target.jsonl}}",
        "target=[]",
        "ablate.seeds=1",
        "ablate.tasks=[]",
    ]
    found = ablate(curation(root, *settings))
    assert found.comparisons[0].tasks == {}
    assert found.comparisons[0].bits_per_byte > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["select=[]"], "select: the recipe has no selection; expected at least one"),
        (["select.0.name=random"], "select: 'random' names the random documents of ablations"),
        (["target=[]"], "ablate: nothing to judge by; expected `target`, or `ablate.held_out`"),
        (
            ["ablate.batch_tokens=100000"],
            "expected at least 20 steps: select more, or lower ablate.batch_tokens",
        ),
        (["ablate.tasks.only={split: test}"], "ablate.tasks: mills holds no question that `only` keeps"),
        (
            ["ablate.tasks.answer=split"],
            r"mills: .*task.jsonl: a record has choices=\[.* and split='val'; expected",
        ),
    ],
)
def test_impossible_ablations(root, report, overrides, message):
    with pytest.raises(RecipeError, match=message):
        ablate(curation(root, *overrides))
