"""What a recipe can say: one YAML file that reads like the method section of a paper; `load_recipe` reads it."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

Format = Literal["jsonl", "parquet", "warc", "text", "html"]
Unit = Literal["documents", "characters", "tokens"]
NAME = r"^[a-z][a-z0-9_-]*$"
SHARE = re.compile(r"(-?(?:\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?))(%?)")
MAX_NAMES = 16
"""Allowed names that an error lists."""
MAX_FOUND = 100
"""Characters of a wrong value that an error shows."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: what is allowed, of many names the most similar ones, and the nearest."""
    names = sorted(allowed)
    by_lower_case = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), by_lower_case, n=1)
    guess = f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""
    if len(names) > MAX_NAMES:
        similar = get_close_matches(name.lower(), by_lower_case, n=MAX_NAMES, cutoff=0)
        shown = ", ".join(sorted(by_lower_case[known] for known in similar))
        return f"; allowed: {shown} and {len(names) - len(similar)} more{guess}"
    return f"; allowed: {', '.join(names)}{guess}"


def _parse_amount(value: Any) -> int | Fraction:
    """A share (`1/16`, `0.25`, `10%`) of what survived so far, or an absolute number (a whole number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected a number of at least 0; found {value}")
        return value
    found = SHARE.fullmatch(str(value))
    try:
        share = Fraction(found[1]) / (100 if found[2] else 1) if found else None
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None:
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share between 0 and 1; found {value!r}")
    return share


def _parse_bounds(value: Any) -> tuple[float, float]:
    """The lowest and the highest keep rate that raise no alarm."""
    match value:
        case [float() | int() as low, float() | int() as high] if 0 <= low <= high <= 1:
            return float(low), float(high)
    raise ValueError(f"found {value!r}; expected [low, high] with 0 <= low <= high <= 1")


def _parse_scorer(value: Any) -> Any:
    """A scorer's name, alone or with a mapping of its options."""
    match value:
        case str():
            return value
        case dict() if len(value) == 1:
            ((name, options),) = value.items()
            if isinstance(name, str) and isinstance(options, dict | None):
                return {name: options or {}}
    raise ValueError(f"expected a scorer's name, or one name with a mapping of its options; found {value!r}")


Amount = Annotated[int | Fraction, BeforeValidator(_parse_amount)]
Bounds = Annotated[tuple[float, float], BeforeValidator(_parse_bounds)]
ScorerEntry = Annotated[str | dict[str, dict[str, Any]], BeforeValidator(_parse_scorer)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Text = Annotated[str, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class Input(Section):
    """One input of the corpus: a file, a glob, or a folder (plain, Hugging Face or dolma layout).

    `text`, `id`, `url` and `created` name fields of the input; dots reach into nested objects.
    """

    path: Text
    source: Text
    format: Format | None = None
    source_field: Text | None = None
    text: Text = "text"
    id: Text = "id"
    url: Text | None = None
    created: Text | None = None
    licence: Text | None = None


class Target(Input):
    """What the trained model should be good at: documents, or questions joined with their correct answers.

    `only` keeps the records whose fields have the given values. With `choices` and `answer`, fields with the possible
    answers and the number of the right one, `text` is a question: the right answer takes the place of its blank `_`, or
    follows it.
    """

    source: Text = "target"
    only: dict[str, str] = {}
    choices: Text | None = None
    answer: Text | None = None

    def as_input(self) -> Input:
        """How the target is read; what is made of its records is decided afterwards."""
        return Input(**self.model_dump(include=set(Input.model_fields)))

    @model_validator(mode="after")
    def _check_answers(self) -> "Target":
        if (self.choices is None) != (self.answer is None):
            raise ValueError(
                "choices and answer go together: the possible answers, and the number of the right one"
            )
        if self.source_field is not None:
            raise ValueError("source_field: a target's records have the source of their entry; leave it out")
        return self


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


class Sample(Section):
    """A seeded random sample of what survived so far."""

    keep: Amount
    of: Unit = "documents"
    seed: Annotated[int, Field(strict=True)] = 0


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


class Tokens(Section):
    """Token shards beside the dataset: its documents tokenised, shuffled by `seed` and packed into sequences.

    `tokenizer` is a Hugging Face directory or JSON file, or `prior`: the tokenizer of `models.prior`. `concatenate`
    puts documents end to end and cuts; `best_fit` cuts none that fits a sequence, and pads. `also` writes the shards in
    the formats of other trainers as well, which know no padding.
    """

    tokenizer: Text = "prior"
    sequence_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    also: list[Literal["olmo", "megatron", "mds"]] = []

    @model_validator(mode="after")
    def _refuse_padding(self) -> "Tokens":
        if self.also and self.packing != "concatenate":
            raise ValueError(
                f"{self.also[0]} does not say which tokens are padding; use `packing: concatenate`, or leave out `also`"
            )
        return self


class Export(Section):
    """How the kept documents, or their kept windows, are written.

    `clean_lines` takes whole documents. `redact_pii` sees a window alone, and not what its border parts.
    """

    clean_lines: Literal["c4"] | None = None
    redact_pii: Flag = False
    metadata: Flag = True
    tokens: Tokens | None = None


Size = Literal["300k", "1m", "3m", "10m", "30m", "70m", "150m"]
Count = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(gt=0)]


class TokenizerModel(Section):
    """The tokenizer: a Hugging Face directory, or byte-level BPE trained on a seeded sample of the corpus."""

    path: Text | None = None
    vocab_size: Annotated[int, Field(ge=257, strict=True)] = 4096
    max_bytes: Count = 64 << 20


class PriorModel(Section):
    """The prior: a Hugging Face directory, or a Llama-style model trained on a seeded sample of the corpus.

    `size` names its parameters without embeddings; `tokens` is the length of the sample, about.
    """

    path: Text | None = None
    size: Size = "1m"
    context: Count = 512
    tokens: Count = 1_000_000
    batch_tokens: Count = 8192
    learning_rate: Rate = 1e-3
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


class ConditionalModel(Section):
    """The conditional model: a Hugging Face directory, or the prior fine-tuned on the target."""

    path: Text | None = None
    epochs: Count = 1
    batch_tokens: Count = 8192
    learning_rate: Rate = 1e-3
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


class ImportanceModel(Section):
    """Counts of hashed n-grams in target and pool, for importance weights."""

    path: Text | None = None
    num_buckets: Count = 10_000


class TargetClassifierModel(Section):
    """A fastText classifier of target against pool: a `.bin` file, or one trained on as many documents of each."""

    path: Text | None = None
    epoch: Count = 5
    max_documents: Count = 200_000
    seed: Annotated[int, Field(ge=0, strict=True)] = 0


class Models(Section):
    """The auxiliary models that scorers use; those without a path are trained in the workspace."""

    tokenizer: TokenizerModel = TokenizerModel()
    prior: PriorModel = PriorModel()
    conditional: ConditionalModel = ConditionalModel()
    importance: ImportanceModel = ImportanceModel()
    target_classifier: TargetClassifierModel = TargetClassifierModel()


class Task(Target):
    """Multiple-choice questions that ablations ask, read like those of a target; `source` names the task."""

    source: Text
    text: Text = "prompt"
    choices: Text = "choices"
    answer: Text = "label"


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
    held_out: list[Target] = []
    tasks: list[Task] = []

    @field_validator("held_out", "tasks", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

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
        if twins := {source for source in sources if sources.count(source) > 1}:
            raise ValueError(
                f"{min(twins)!r} is the source of two entries; give every entry a source of its own"
            )
        return self


class Recipe(Section):
    """A whole recipe, every path absolute."""

    workspace: Text
    corpus: Annotated[list[Input], Field(min_length=1)]
    block: Block = Block()
    target: list[Target] = []
    models: Models = Models()
    score: list[ScorerEntry] = []
    duplicates: Duplicates | None = None
    select: list[Selection] = []
    export: Export = Export()
    ablate: Ablate = Ablate()
    max_reject_rate: Share = 0.01
    max_document_bytes: Annotated[int, Field(ge=1, strict=True)] = 32 << 20

    @field_validator("select", "target", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("select")
    @classmethod
    def _refuse_twins(cls, selections: list[Selection]) -> list[Selection]:
        names = [selection.name for selection in selections]
        if twins := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twins)!r} names two selections; every selection needs a name of its own")
        return selections

    @field_validator("target")
    @classmethod
    def _refuse_twin_targets(cls, entries: list[Target]) -> list[Target]:
        sources = [entry.source for entry in entries]
        if twins := {source for source in sources if sources.count(source) > 1}:
            raise ValueError(
                f"{min(twins)!r} is the source of two entries; give every entry a source of its own"
            )
        return entries

    @field_validator("score")
    @classmethod
    def _refuse_twin_scorers(cls, entries: list[Any]) -> list[Any]:
        names = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
        if twins := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"{min(twins)!r} stands twice; name every scorer once")
        return entries

    def scorer_options(self) -> dict[str, dict[str, Any]]:
        """Scorer name -> its options, in the recipe's order."""
        return dict(
            next(iter(entry.items())) if isinstance(entry, dict) else (entry, {}) for entry in self.score
        )
