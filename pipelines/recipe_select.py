"""How a recipe chooses documents."""

from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from gristmill.pipelines.recipe_values import NAME, Amount, Bounds, Section, Text, Unit, nearest


class Preference(Section):
    """Which of similar documents is preferred: source priority, then a score's better end, then doc_id.

    `direction` names the better end where the score itself has none.
    """

    prefer: list[str] = []
    then: str | None = None
    direction: Literal["highest", "lowest"] | None = None


class Thin(Preference):
    """Which documents of a group are too alike: those whose `simhash` is near that of a preferred one that stays.

    `within` is the column that makes groups: one value, such as one host, one group. `max_distance` is how many of the
    64 bits may differ. The text analogue of "Less is More", which keeps greedy exemplars within each volume, at 6 bits,
    before it looks for duplicates among all.
    """

    within: Text
    max_distance: Annotated[int, Field(ge=0, le=64, strict=True)] = 6


class Deduplicate(Preference):
    """Which member of a duplicate cluster survives."""


class Top(Section):
    """Keep the best by a score: the shortest prefix that reaches the budget, ties broken by doc_id.

    With `unit: windows` the windows that the scorer saw compete in place of whole documents, counted in tokens; a
    document is kept if one of its windows is. With `batch`, documents are put by a seeded hash of their doc_id into
    batches of about that many, and each batch keeps the same share of its own. CoLoR-Filter (arXiv 2406.10670) chooses
    windows, among all or by batches (appendix F), where a batch counts windows.
    """

    by: str
    keep: Amount
    of: Unit = "documents"
    direction: Literal["highest", "lowest"] | None = None
    unit: Literal["documents", "windows"] = "documents"
    batch: Annotated[int, Field(ge=1, strict=True)] | None = None

    @field_validator("batch")
    @classmethod
    def _refuse_absolute(cls, batch: int | None, info: ValidationInfo) -> int | None:
        keep = info.data.get("keep")
        if batch is not None and isinstance(keep, int):
            raise ValueError(
                f"each batch keeps a share of its own; found keep: {keep}, expected one like 1/16"
            )
        return batch


class Quota(Section):
    """A budget for each named source; sources not named keep everything."""

    keep: dict[str, Amount]
    by: str | None = None
    of: Unit = "documents"
    direction: Literal["highest", "lowest"] | None = None


class LossWeights(Section):
    """Which losses are sampled more often: a softmax of a function of the loss, from the least to the greatest.

    `lin_upper` damps low losses, `quadratic` favours medium ones, `extremes` low and high ones (arXiv 2502.06733, where
    they weigh batches of a training); the greater the `temperature`, the more alike are the weights. `proportional`
    takes the column itself for the weight, such as a probability; documents of weight 0 come last.
    """

    by: str
    function: Literal["lin_upper", "quadratic", "extremes", "proportional"] = "lin_upper"
    temperature: Annotated[float, Field(ge=0.001, allow_inf_nan=False)] = 1.0


class Sample(Section):
    """A seeded random sample, without replacement, of what survived so far; `weights` makes some losses likelier.

    `draws` make so many selections, `<name>-0` and on, of seeds from `seed` on, for a feed with `refresh`.
    """

    keep: Amount
    of: Unit = "documents"
    seed: Annotated[int, Field(strict=True)] = 0
    weights: LossWeights | None = None
    draws: Annotated[int, Field(ge=2, strict=True)] | None = None


class Selection(Section):
    """What to keep, in this order: block lists, `where`, `thin`, duplicates, `quota`, `sample`, `top`."""

    name: Annotated[str, Field(pattern=NAME)]
    where: dict[Annotated[str, Field(pattern=NAME)], str] = {}
    thin: Thin | None = None
    deduplicate: Deduplicate | None = None
    quota: Quota | None = None
    sample: Sample | None = None
    top: Top | None = None
    keep_rates: dict[str, Bounds] = {}

    @field_validator("where")
    @classmethod
    def _refuse_reserved(cls, where: dict[str, str]) -> dict[str, str]:
        if taken := RESERVED_STEPS & where.keys():
            raise ValueError(f"{', '.join(sorted(taken))} names a built-in step; choose another name")
        return where

    @model_validator(mode="after")
    def _check_keep_rates(self) -> "Selection":
        if unknown := self.keep_rates.keys() - set(self.steps()):
            name = min(unknown)
            raise ValueError(f"keep_rates: no step {name!r}{nearest(name, self.steps())}")
        return self

    def each_draw(self) -> list["Selection"]:
        """The selection itself, or one for each draw of its sample."""
        if self.sample is None or self.sample.draws is None:
            return [self]
        samples = [
            self.sample.model_copy(update={"seed": self.sample.seed + number, "draws": None})
            for number in range(self.sample.draws)
        ]
        return [
            self.model_copy(update={"name": f"{self.name}-{number}", "sample": sample})
            for number, sample in enumerate(samples)
        ]

    def steps(self) -> list[str]:
        """The names of the steps this selection runs, in order."""
        built_in = ["quota", "sample", "top"]
        return [
            "empty",
            "block",
            *self.where,
            *(["thin"] if self.thin is not None else []),
            *(["duplicate"] if self.deduplicate is not None else []),
            *(name for name in built_in if getattr(self, name) is not None),
        ]


RESERVED_STEPS = {"empty", "block", "thin", "duplicate", "quota", "sample", "top"}
