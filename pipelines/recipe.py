"""What a recipe can say: one YAML file that reads like the method section of a paper; `load_recipe` reads it."""

from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gristmill.pipelines.recipe_export import Export
from gristmill.pipelines.recipe_inputs import TWIN_SOURCES, Input, Target, Task
from gristmill.pipelines.recipe_models import Models, Size
from gristmill.pipelines.recipe_select import Selection
from gristmill.pipelines.recipe_values import (
    Amount,
    Count,
    Many,
    Rate,
    ScorerEntry,
    Section,
    Share,
    Text,
    nearest,
    refuse_twins,
)


class Block(Section):
    """Block lists and take-down lists: text files with one entry a line, `#` starts a comment."""

    hosts: list[Text] = []
    urls: list[Text] = []
    ids: list[Text] = []
    doc_ids: list[Text] = []


class Duplicates(Section):
    """When two documents are near duplicates, by the signatures of `minhash`.

    A pair of Jaccard similarity s is found with probability 1 - (1 - s^rows_per_band)^num_bands: more bands find more,
    more rows find less. The default leaves 0.4 % of the pairs at 0.8; `num_bands: 14, rows_per_band: 8` is datatrove's,
    which leaves 8 %. `verify` compares every member's shingles with its representative's; `prefer` says whose
    documents represent; a bucket of more than `max_bucket` documents is not compared all with all, and reported.
    """

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    num_bands: Annotated[int, Field(ge=1)] = 18
    rows_per_band: Annotated[int, Field(ge=1)] = 6
    max_bucket: Annotated[int, Field(ge=1)] = 64
    verify: bool = True
    prefer: list[str] = []
    max_cluster_size: Annotated[int, Field(ge=2)] | None = None


class Ablate(Section):
    """How `gristmill ablate` shows that a selection teaches: the same model, trained on each and on random documents.

    Every training sees `tokens`, those of the smallest selection where it is null; one on random documents sees the
    `multiples` of that. The models are judged by the documents of `held_out`, or the target's held-out ones where it is
    empty, and by the questions of `tasks`.
    """

    size: Size = "300k"
    context: Count = 128
    tokens: Count | None = None
    multiples: list[Count] = [1, 2, 4, 8, 16]
    seeds: Count = 3
    batch_tokens: Count = 2048
    learning_rate: Rate = 3e-3
    held_out: Many[Target] = []
    tasks: Many[Task] = []

    @field_validator("multiples")
    @classmethod
    def _check_multiples(cls, multiples: list[int]) -> list[int]:
        if multiples[:1] != [1] or sorted(set(multiples)) != multiples:
            raise ValueError(
                f"found {multiples}; expected ascending whole numbers from 1, such as [1, 2, 4, 8, 16]"
            )
        return multiples

    @model_validator(mode="after")
    def _refuse_twins(self) -> "Ablate":
        sources = [entry.source for entry in [*self.held_out, *self.tasks]]
        refuse_twins(sources, TWIN_SOURCES)
        return self


class Mixture(Section):
    """How `gristmill mixture` finds the share of domain text that continual pre-training of the prior bears.

    The prior goes on training for `tokens` on each of `ratios`: that share of the documents that the selection `domain`
    keeps, and random documents for the rest. Losses are taken at `points` lengths; a share is feasible if the general
    loss rises by at most `epsilon` nats a token. Batches and peak rate are those of `models.prior` where they are null.
    """

    domain: Text
    tokens: Count
    ratios: list[Amount] = [Fraction(1, 8), Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(3, 4)]
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    points: Annotated[int, Field(ge=6, strict=True)] = 8
    batch_tokens: Count | None = None
    learning_rate: Rate | None = None
    seed: Annotated[int, Field(ge=0, strict=True)] = 0

    @field_validator("ratios")
    @classmethod
    def _check_ratios(cls, ratios: list[int | Fraction]) -> list[int | Fraction]:
        if len(ratios) < 4 or sorted(set(ratios)) != ratios or not all(0 < ratio < 1 for ratio in ratios):
            found = ", ".join(map(str, ratios))
            raise ValueError(
                f"found [{found}]; expected at least 4 ascending shares between 0 and 1, such as [1/8, 1/4, 1/2, 3/4]"
            )
        return ratios


class Recipe(Section):
    """A whole recipe, every path absolute."""

    workspace: Text
    corpus: Annotated[list[Input], Field(min_length=1)]
    block: Block = Block()
    target: Many[Target] = []
    models: Models = Models()
    score: list[ScorerEntry] = []
    duplicates: Duplicates | None = None
    select: Many[Selection] = []
    export: Export = Export()
    ablate: Ablate = Ablate()
    mixture: Mixture | None = None
    max_reject_rate: Share = 0.01
    max_document_bytes: Annotated[int, Field(ge=1, strict=True)] = 32 << 20

    @field_validator("select")
    @classmethod
    def _each_draw(cls, selections: list[Selection]) -> list[Selection]:
        selections = [draw for selection in selections for draw in selection.each_draw()]
        names = [selection.name for selection in selections]
        refuse_twins(names, "names two selections; every selection needs a name of its own")
        return selections

    @field_validator("mixture")
    @classmethod
    def _check_domain(cls, mixture: Mixture | None, info: ValidationInfo) -> Mixture | None:
        names = [selection.name for selection in info.data.get("select", [])]
        if mixture is not None and mixture.domain not in names:
            raise ValueError(
                f"domain: found {mixture.domain!r}, expected the name of a selection{nearest(mixture.domain, names)}"
            )
        return mixture

    @field_validator("target")
    @classmethod
    def _refuse_twin_targets(cls, entries: list[Target]) -> list[Target]:
        sources = [entry.source for entry in entries]
        refuse_twins(sources, TWIN_SOURCES)
        return entries

    @field_validator("score")
    @classmethod
    def _refuse_twin_scorers(cls, entries: list[Any]) -> list[Any]:
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
        refuse_twins(names, "stands twice; name every scorer once")
        return entries

    def scorer_options(self) -> dict[str, dict[str, Any]]:
        """Scorer name -> its options, in the recipe's order."""
        return dict(
            next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in self.score
        )
