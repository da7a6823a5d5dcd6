"""What a recipe says of auxiliary models."""

from typing import Annotated, Literal

from pydantic import Field

from gristmill.pipelines.recipe_values import Count, Rate, Section, Text

Size = Literal["300k", "1m", "3m", "10m", "30m", "70m", "150m"]


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
