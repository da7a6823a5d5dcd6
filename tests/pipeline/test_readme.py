"""Every command and every printed answer of the README is real."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.pipelines import demo
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.load_recipe import load_recipe
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.select_sql import compile_selection
from gristmill.pipelines.train_models import models_of, wanted_models
from gristmill.scorers.registry import make_scorer
from gristmill.scorers.text import TextBatch
from gristmill.sql import queries

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str) -> list[tuple[str, str]]:
    """Language and content of the fenced blocks of one section."""
    return BLOCK.findall(README.split(f"\n## {section}\n")[1].split("\n## ")[0])


def run(command: str, folder: Path) -> str:
    """What a command prints, run where the README's reader would be."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def without_padding(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


@pytest.fixture(scope="module")
def walkthrough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the commands of the walk-through were run and their answers compared."""
    folder = tmp_path_factory.mktemp("readme")
    printed = ""
    for language, content in blocks("A recipe, start to finish"):
        match language:
            case "bash":
                printed = run(content, folder)
            case "yaml":
                (folder / "recipe.yaml").write_text(content)
            case "text":
                assert without_padding(printed) == without_padding(content)
            case "python":
                run(f"python - <<'EOF'\n{content}\nEOF", folder)
    return folder


def test_the_walk_through_prints_what_the_readme_says(walkthrough: Path) -> None:
    assert (walkthrough / "mill/datasets/small/manifest.json").exists()


def test_the_two_commands_are_make_targets() -> None:
    (block,) = [content for language, content in blocks("Start") if language == "bash"]
    assert block.split("\n")[:-1] == ["make demo", "make test"]
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"install", "demo", "test", "lint", "bench"} <= set(targets)


def test_the_demo_does_what_the_readme_says(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(demo.RECIPE)
    recipe = load_recipe(str(path))
    models = recipe.models
    num_models = len(["prior", "conditional"]) + len(models.ladder.rungs) + models.meta_rater.proxies
    section = " ".join(README.split("\n## Start\n")[1].split("\n## ")[0].split())
    assert f"trains {num_models} tiny language models, eight of them to weigh quality signals" in section
    assert models.meta_rater.proxies == 8
    assert f"finds {recipe.scorer_options()['facility_location']['budget']} documents that stand" in section
    assert "the answers to six SQL questions and a named query" in section
    assert len(demo.QUESTIONS) == 6
    assert demo.NAMED_QUERY in queries()


def test_the_tree_names_every_folder_and_no_other() -> None:
    (_, tree), (_, workspace) = blocks("Where things are")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {
        path.split("/")[0] for path in tracked.splitlines() if "/" in path and not path.startswith(".")
    }
    assert set(re.findall(r"^(\w+)/", tree, re.MULTILINE)) == folders
    assert {"corpus", "documents", "scores", "decisions", "datasets"} <= set(
        re.findall(r"^(\w+)/", workspace, re.MULTILINE)
    )


def test_the_scorer_of_the_readme_scores() -> None:
    code = next(content for language, content in blocks("A scorer of your own") if language == "python")
    module = type(sys)("my_package.scorers")
    sys.modules["my_package.scorers"] = module
    try:
        exec(code, module.__dict__)
        scores = module.Exclamations(mark="?").score(TextBatch.from_texts(["", "What? Why?"]))
    finally:
        del sys.modules["my_package.scorers"]
    assert scores.to_pydict() == {"num_exclamations": [0, 2]}


def sound_recipe(content: str, folder: Path) -> Recipe:
    """A section's part of a recipe, with a workspace and a corpus."""
    path = folder / "recipe.yaml"
    path.write_text(f"workspace: mill\ncorpus: [{{path: crawl.jsonl, source: web}}]\n{content}")
    return load_recipe(str(path))


def test_the_ladder_of_the_paper_is_a_sound_recipe(tmp_path: Path) -> None:
    (content,) = [content for language, content in blocks("Choosing what predicts") if language == "yaml"]
    recipe = sound_recipe(content, tmp_path)
    averages = [rung.average for rung in recipe.models.ladder.rungs]
    assert averages == [75.38, 76.30, 77.27, 79.46, 80.47, 81.19]
    assert models_of(recipe, wanted_models(recipe)) == ["ladder", "predictive_strength"]
    scorers = [make_scorer("predictive_strength", {"model": "classifier.bin"})]
    compiled = compile_selection(recipe, recipe.select[0], scorers, "select")
    assert compiled.selection.steps() == ["empty", "block", "unmeasured", "top"]


def test_representatives_and_their_draws_are_a_sound_recipe(tmp_path: Path) -> None:
    (content,) = [content for language, content in blocks("Choosing representatives") if language == "yaml"]
    recipe = sound_recipe(content, tmp_path)
    assert models_of(recipe, wanted_models(recipe)) == ["tokenizer", "prior", "clusters"]
    options = {"embedding": {"model": "prior"}, "clusters": {"model": "clusters"}}
    scorers = [
        make_scorer(name, options.get(name, {}) | said) for name, said in recipe.scorer_options().items()
    ]
    names = [selection.name for selection in recipe.select]
    assert names == ["representative", *(f"drawn-{draw}" for draw in range(4)), "near-textbooks"]
    for selection in recipe.select:
        compile_selection(recipe, selection, scorers, "select")
    (code,) = [content for language, content in blocks("Choosing representatives") if language == "python"]
    space: dict[str, Any] = {"TokenFeed": lambda folders, **options: (folders, options)}
    exec(code, space)
    folders, options = space["feed"]
    assert [Path(folder).parent.name for folder in folders] == names[1:5]
    assert options.keys() <= signature(TokenFeed).parameters.keys()
    section = README.split("\n## Choosing representatives\n")[1].split("\n## ")[0]
    (rule,) = re.findall(r"`(top: {by: \"[^`]*})`", section)
    selection = Selection.model_validate({"name": "both", **yaml.safe_load(rule)})
    rater = make_scorer("educational_value", {"model": "rater"})
    compile_selection(recipe, selection, [*scorers, rater], "select")


def test_the_raters_of_the_readme_are_trained(tmp_path: Path) -> None:
    _, content = [content for language, content in blocks("Rating quality") if language == "yaml"]
    recipe = sound_recipe(content, tmp_path)
    assert models_of(recipe, wanted_models(recipe)) == ["readability", "reasoning", "cleanliness", "toxicity"]


def test_the_raters_of_the_readme_are_scorers_with_such_options() -> None:
    content = next(content for language, content in blocks("Rating quality") if language == "yaml")
    made = [
        make_scorer(name, options)
        for entry in yaml.safe_load(content)["score"]
        for name, options in entry.items()
    ]
    assert [scorer.name for scorer in made] == [
        "readability",
        "educational_value",
        "qurating",
        "machine_written",
        "rater",
    ]


def test_the_weighing_of_signals_is_a_sound_recipe_and_filters_have_inverses(tmp_path: Path) -> None:
    (content,) = [content for language, content in blocks("Weighing quality signals") if language == "yaml"]
    recipe = sound_recipe(content, tmp_path)
    assert models_of(recipe, ["meta_rater"]) == ["tokenizer", "meta_rater"]
    assert recipe.models.meta_rater.signals["rps_doc_word_count"] == "highest"
    scorers = [make_scorer("meta_rater", {"model": "weights"}), make_scorer("toxicity", {"model": "rater"})]
    section = README.split("\n## Weighing quality signals\n")[1].split("\n## ")[0]
    rules = [yaml.safe_load(rule) for rule in re.findall(r"`((?:where|top): {[^`]*})`", section)]
    assert [name for rule in rules for name in rule] == ["where", "where", "top"]
    for rule in rules:
        selection = Selection.model_validate({"name": "filtered", **rule})
        compile_selection(recipe, selection, scorers, "select")
