"""Quality signals: score columns that are weighed against each other, by name and with their better ends."""

from dataclasses import dataclass
from typing import Any

from gristmill.pipelines.recipe_models import MetaRaterModel
from gristmill.pipelines.recipe_values import nearest
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import RecipeError


@dataclass(frozen=True)
class SignalColumn:
    """Where a signal is stored.

    Args:
        name: Score column.
        scorer: Whose.
        fingerprint: Of its current version.
        higher_is_better: Its better end.
    """

    name: str
    scorer: str
    fingerprint: str
    higher_is_better: bool

    @property
    def version(self) -> str:
        """What made it, as in `DerivedScorer.versions`."""
        return f"{self.scorer}/{self.fingerprint}"


def find_signals(workspace: Workspace, spec: MetaRaterModel) -> list[SignalColumn]:
    """Where the signals are stored, and their better ends.

    Raises:
        RecipeError: If a signal is not scored, is no number, or has no better end.
    """
    current = workspace.read_json("scores", "current.json") or {}
    stored: dict[str, tuple[str, str, dict[str, Any]]] = {}
    for scorer, fingerprint in current.items():
        manifest = workspace.read_json("scores", scorer, fingerprint, "manifest.json")
        if manifest is not None:
            stored |= {column["name"]: (scorer, fingerprint, column) for column in manifest["columns"]}
    found = []
    for name, direction in spec.signals.items():
        if name not in stored:
            raise RecipeError(
                f"models.meta_rater.signals: nothing has scored {name!r}{nearest(name, stored)}"
            )
        scorer, fingerprint, column = stored[name]
        if not column["type"].startswith(("int", "uint", "float", "double", "halffloat", "bool")):
            raise RecipeError(f"models.meta_rater.signals: {name} is {column['type']}; expected a number")
        better = column["higher_is_better"] if direction is None else direction == "highest"
        if better is None:
            raise RecipeError(
                f"models.meta_rater.signals: {name} has no better end; say `{name}: highest` or `{name}: lowest`, "
                "since weights cannot be negative"
            )
        found.append(SignalColumn(name, scorer, fingerprint, better))
    return found
