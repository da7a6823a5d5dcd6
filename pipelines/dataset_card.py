"""The dataset card: what a dataset holds, what was dropped on the way, and under which licences."""

from collections.abc import Sequence
from typing import Any

import yaml

from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import Scorer


def render(workspace: Workspace, recipe: Recipe, selection: Selection, scorers: Sequence[Scorer]) -> str:
    """The README.md of a dataset, with the front matter Hugging Face reads."""
    decisions = workspace.read_json("decisions", selection.name, "manifest.json")
    funnel = decisions["funnel"]
    licences = {item.source: item.licence or "not stated" for item in recipe.corpus}
    header = {
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": "train-*.parquet"}]}
        ],
        "license": "other",
        "license_name": "see-below",
        "task_categories": ["text-generation"],
    }
    rules = selection.model_dump(mode="json", exclude_defaults=True)
    return "\n".join(
        [
            "---",
            yaml.safe_dump(header, sort_keys=False).strip(),
            "---",
            f"# {selection.name}",
            "",
            _contents(funnel, decisions["num_windows"]),
            "",
            "## Funnel",
            "",
            *_table(
                ["step", "documents in", "kept", "keep rate", "characters kept"],
                [
                    [
                        step["step"],
                        f"{step['num_in']:,}",
                        f"{step['num_kept']:,}",
                        f"{step['num_kept'] / step['num_in']:.2%}" if step["num_in"] else "",
                        f"{step['num_chars_kept']:,}",
                    ]
                    for step in funnel
                ],
            ),
            "",
            "## Rules",
            "",
            "```yaml",
            yaml.safe_dump(rules, sort_keys=False).strip(),
            "```",
            "",
            "## Scorers",
            "",
            *_table(
                ["scorer", "version", "fingerprint"],
                [[scorer.name, str(scorer.version), scorer.fingerprint()] for scorer in scorers],
            ),
            "",
            "## Sources and licences",
            "",
            *_table(
                ["source", "licence"], [[source, licence] for source, licence in sorted(licences.items())]
            ),
            "",
        ]
    )


def _contents(funnel: Sequence[dict[str, Any]], num_windows: int | None) -> str:
    documents = f"{funnel[-1]['num_kept']:,} of {funnel[0]['num_in']:,} documents, selected with gristmill."
    columns = "`text`, `id`, `source`, `url`, `created`, `metadata` (JSON)"
    if num_windows is None:
        return f"{documents} Each row is one document: `doc_id`, {columns}."
    return (
        f"{num_windows:,} windows of {documents} Each row is one window of a document: `doc_id`, {columns}, `window` "
        "(its number, from 0). The funnel counts whole documents and their characters."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(map(_cell, cells)) + " |" for cells in [head, *rows]]
    return [lines[0], "|" + " --- |" * len(head), *lines[1:]]


def _cell(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.split()).replace("|", "\\|")
