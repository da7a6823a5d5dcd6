"""What a recipe says of auxiliary models."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from gristmill.pipelines.recipe_inputs import TWIN_SOURCES, Target, Task
from gristmill.pipelines.recipe_raters import DIMENSIONS, RaterModels
from gristmill.pipelines.recipe_values import Count, Flag, Many, Rate, Section, Seed, Text, refuse_twins

Size = Literal["300k", "1m", "3m", "10m", "30m", "70m", "150m"]
MIN_PROXIES, MIN_TWO_ROUNDS = 8, 12
"""Proxies that a search can learn from, of one round and of two, of which the first has three quarters."""


class AuxiliaryModel(Section):
    """A model that is given by its path, or else made in the workspace."""

    path: Text | None = None

    @property
    def lacking(self) -> str | None:
        """Why it cannot be made from what the recipe says, None where it can."""
        return None

    def paths(self) -> dict[str, str]:
        """Key -> path of every model that is given."""
        return {} if self.path is None else {"path": self.path}

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with every path changed."""
        return self if self.path is None else self.model_copy(update={"path": change(self.path)})


class Pretraining(Section):
    """How a Llama-style model is trained on a seeded sample of the corpus of about so many `tokens`."""

    context: Count = 512
    tokens: Count = 1_000_000
    batch_tokens: Count = 8192
    learning_rate: Rate = 1e-3


class TokenizerModel(AuxiliaryModel):
    """The tokenizer: a Hugging Face directory, or byte-level BPE trained on a seeded sample of the corpus."""

    vocab_size: Annotated[int, Field(ge=257, strict=True)] = 4096
    max_bytes: Count = 64 << 20


class PriorModel(AuxiliaryModel, Pretraining):
    """The prior: a Hugging Face directory, or a Llama-style model trained on a seeded sample of the corpus.

    `size` names its parameters without embeddings.
    """

    size: Size = "1m"
    seed: Seed = 0


class ConditionalModel(AuxiliaryModel):
    """The conditional model: a Hugging Face directory, or the prior fine-tuned on the target."""

    epochs: Count = 1
    batch_tokens: Count = 8192
    learning_rate: Rate = 1e-3
    seed: Seed = 0


class ImportanceModel(AuxiliaryModel):
    """Counts of hashed n-grams in target and pool, for importance weights."""

    num_buckets: Count = 10_000


class DomainImportanceModel(ImportanceModel):
    """Counts of hashed n-grams in the pool and in a corpus of each of some domains, for importance weights.

    `domains` names the corpora: the path of one, or an input like that of a target.
    """

    domains: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Target] = {}

    @property
    def lacking(self) -> str | None:
        """Why it cannot be made."""
        if self.domains:
            return None
        return "it compares the corpus with those of domains; expected `domains`, or a `path`"

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with every path changed."""
        domains = {
            name: domain.model_copy(update={"path": change(domain.path)})
            for name, domain in self.domains.items()
        }
        return super().with_paths(change).model_copy(update={"domains": domains})

    @field_validator("domains", mode="before")
    @classmethod
    def _paths_alone(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        inputs = {name: {"path": said} if isinstance(said, str) else said for name, said in value.items()}
        return {
            name: {"source": name} | said if isinstance(said, dict) else said for name, said in inputs.items()
        }

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.path is not None and self.domains:
            raise ValueError("domains are of counts that are made here; leave them out beside a path")
        return self


class TargetClassifierModel(AuxiliaryModel):
    """A fastText classifier of target against pool: a `.bin` file, or one trained on as many documents of each."""

    epoch: Count = 5
    max_documents: Count = 200_000
    seed: Seed = 0


class Rung(Pretraining):
    """One model of a ladder: a Hugging Face directory, or a size to train on a seeded sample of the corpus.

    `average` is the mean of its benchmark results; higher is better.
    """

    path: Text | None = None
    size: Size | None = None
    average: float | None = None

    @property
    def title(self) -> str:
        """What SQL and messages call it."""
        return self.path if self.path is not None else f"{self.size}, {self.tokens} tokens"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.path is None) == (self.size is None):
            raise ValueError("a rung is either a model given by its `path`, or a `size` to train; give one")
        if self.path is not None and (training := self.model_fields_set & Pretraining.model_fields.keys()):
            raise ValueError(f"{min(training)} is of rungs that are trained here; leave it out beside a path")
        return self


class LadderModel(Section):
    """Models of one family of which it is known which is better.

    They are ordered by their averages, or, where none has one, by their loss on the right answers of `tasks`: those
    of the target where it names no tasks, and on the target's held-out documents where the target asks no questions.
    `seed` is of the weights and the samples of rungs that are trained.
    """

    rungs: list[Rung] = []
    tasks: Many[Task] = []
    seed: Seed = 0

    def paths(self) -> dict[str, str]:
        """Key -> path of every model that is given."""
        return {
            f"rungs.{number}.path": rung.path
            for number, rung in enumerate(self.rungs)
            if rung.path is not None
        }

    def with_paths(self, change: Callable[[str], str]) -> Self:
        """The same with every path changed."""
        rungs = [
            rung if rung.path is None else rung.model_copy(update={"path": change(rung.path)})
            for rung in self.rungs
        ]
        tasks = [task.model_copy(update={"path": change(task.path)}) for task in self.tasks]
        return self.model_copy(update={"rungs": rungs, "tasks": tasks})

    @property
    def lacking(self) -> str | None:
        """Why it cannot be made."""
        if self.rungs:
            return None
        return (
            "predictive strength compares at least two models; expected `rungs`, or a "
            "`models.predictive_strength.path`"
        )

    @property
    def is_trained(self) -> bool:
        """Whether some rung is trained here."""
        return any(rung.size is not None for rung in self.rungs)

    @property
    def has_averages(self) -> bool:
        """Whether averages order the rungs."""
        return any(rung.average is not None for rung in self.rungs)

    @property
    def needs_target(self) -> bool:
        """Whether the rungs are measured on the target."""
        return not self.has_averages and not self.tasks

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse_twins([task.source for task in self.tasks], TWIN_SOURCES)
        refuse_twins([rung.title for rung in self.rungs], "stands twice; every rung is another model")
        averages = [rung.average for rung in self.rungs if rung.average is not None]
        if len(self.rungs) == 1:
            raise ValueError("found one rung; expected at least 2, since strength compares models")
        if averages and len(averages) < len(self.rungs):
            raise ValueError("some rungs have an average and some have none; give it to all, or to none")
        if len(set(averages)) < len(averages):
            twin = next(value for value in averages if averages.count(value) > 1)
            raise ValueError(f"two rungs have the average {twin:g}; of equal models none is better")
        if self.is_trained and self.paths() and not averages:
            raise ValueError(
                "some rungs are given by a path and some are trained; give every one its average, or use one kind"
            )
        return self


class PredictiveStrengthModel(AuxiliaryModel):
    """A fastText classifier of documents by which a ladder's order can be told: a `.bin` file, or one trained here.

    It is trained on documents of the corpus, `documents_per_host` of each of the most frequent `hosts`, that no rung
    was trained on. `window` and `stride` are what the rungs see of them, in tokens: 1,901 and 512, or what the smallest
    context allows. `zero_end_of_line` forgets what the classifier learnt from the length of texts.
    """

    hosts: Count = 3000
    documents_per_host: Count = 300
    window: Count | None = None
    stride: Count | None = None
    epoch: Count = 5
    zero_end_of_line: Flag = True
    seed: Seed = 0


class MetaRaterModel(AuxiliaryModel):
    """Weights of quality signals: a folder with `weights.json`, or found by `proxies`, small models trained here.

    `signals` names score columns, with the better end of those that have none of their own. Each proxy is trained on
    `tokens` of the share `keep` of a sample of the corpus that its weights put first. `surrogate` predicts losses from
    weights; by default whichever errs least. In a second round a quarter of the proxies search around the answer.

    `min_max` is the default since documents chosen by it taught a fresh model more in an ablation: 2.76 bits a byte of
    held-out text against 2.87 by `quantile` with weights learned for each, 2.87 against 3.00 with equal ones.
    """

    signals: dict[str, Literal["highest", "lowest"] | None] = {}
    normalisation: Literal["min_max", "quantile"] = "min_max"
    proxies: Annotated[int, Field(ge=MIN_PROXIES, strict=True)] = 256
    keep: Annotated[float, Field(gt=0, lt=1)] = 0.15
    rounds: Annotated[int, Field(ge=1, le=2, strict=True)] = 1
    surrogate: Literal["linear", "squares", "quadratic", "lightgbm"] | None = None
    size: Size = "300k"
    context: Count = 128
    tokens: Count = 500_000
    batch_tokens: Count = 2048
    learning_rate: Rate = 3e-3
    seed: Seed = 0

    @property
    def lacking(self) -> str | None:
        """Why it cannot be made."""
        return (
            None if self.signals else "it weighs scores against each other; expected `signals`, or a `path`"
        )

    @field_validator("signals", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        pairs = [
            entry if isinstance(entry, dict) and len(entry) == 1 else {str(entry): None} for entry in value
        ]
        refuse_twins([name for pair in pairs for name in pair], "stands twice; name every signal once")
        return {name: direction for pair in pairs for name, direction in pair.items()}

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        if self.rounds == 2 and self.proxies < MIN_TWO_ROUNDS:
            raise ValueError(f"found {self.proxies} proxies for 2 rounds; expected at least {MIN_TWO_ROUNDS}")
        return self


class ClustersModel(AuxiliaryModel):
    """Clusters of documents by `embedding`: a folder with `clusters.safetensors`, or k-means on a seeded sample.

    The sample holds about `max_documents` of the corpus. Where the recipe has a target, the model also knows how many
    of the target's documents fall into each cluster.
    """

    num_clusters: Count = 100
    max_documents: Count = 100_000
    seed: Seed = 0


class Models(Section):
    """The auxiliary models that scorers use; those without a path are trained in the workspace."""

    tokenizer: TokenizerModel = TokenizerModel()
    prior: PriorModel = PriorModel()
    conditional: ConditionalModel = ConditionalModel()
    importance: ImportanceModel = ImportanceModel()
    domain_importance: DomainImportanceModel = DomainImportanceModel()
    target_classifier: TargetClassifierModel = TargetClassifierModel()
    ladder: LadderModel = LadderModel()
    predictive_strength: PredictiveStrengthModel = PredictiveStrengthModel()
    meta_rater: MetaRaterModel = MetaRaterModel()
    clusters: ClustersModel = ClustersModel()
    raters: RaterModels = RaterModels()

    def of(self, name: str) -> Any:
        """What is said of one model; raters go by their dimension."""
        return self.raters.of(name) if name in DIMENSIONS else getattr(self, name)
