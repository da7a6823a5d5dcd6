"""How a recipe says what becomes of the kept documents: their texts, and the tokens that models are trained on."""

from string import Formatter
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from gristmill.pipelines.recipe_values import Flag, Section, Share, Text, nearest

PREFIX_FIELDS = ("host", "host_hash", "suffix", "url", "source", "year")


class Prefix(Section):
    """Metadata before a document's tokens, without loss (MeCo, arXiv 2501.01956).

    `template` is text with the fields `{host}`, `{host_hash}`, `{suffix}` (the host's last label), `{url}`, `{source}`
    and `{year}`; `missing` stands for a field that a document lacks, which has no prefix where it is null. A `share` of
    the documents has prefixes. The share `cool_down`, of other documents, is kept apart, without prefixes.
    """

    template: Text = "URL: {host}\n\n"
    share: Share = 1.0
    missing: Text | None = None
    cool_down: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0

    @field_validator("template")
    @classmethod
    def _check_fields(cls, template: str) -> str:
        try:
            parts = list(Formatter().parse(template))
        except ValueError as error:
            raise ValueError(
                f"found {template!r}: {error}; write {{{{ and }}}} for braces that are text"
            ) from error
        for _, name, spec, conversion in parts:
            if name is not None and name not in PREFIX_FIELDS:
                raise ValueError(f"unknown field {{{name}}}{nearest(name, PREFIX_FIELDS)}")
            if spec or conversion:
                raise ValueError(f"{{{name}}} has a format; expected the name of a field alone")
        return template


class Control(Section):
    """Tokens that say before each document, or each sentence, whether a score finds it good (arXiv 2302.08582).

    `by` is a column of a scorer of the recipe; good is what is at least as good as the `threshold`, or as the
    `quantile` of the scores of all kept documents (or their sentences). `direction` says which end is better where the
    column does not. The share `drop_out` is left untagged.
    """

    by: Text
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    quantile: Share | None = None
    direction: Literal["highest", "lowest"] | None = None
    per: Literal["document", "sentence"] = "document"
    drop_out: Share = 0.01
    good: Text = "<|good|>"
    bad: Text = "<|bad|>"

    @model_validator(mode="after")
    def _check(self) -> "Control":
        if (self.threshold is None) == (self.quantile is None):
            raise ValueError("give either a threshold or a quantile of the scores")
        if self.good == self.bad:
            raise ValueError(f"good and bad are both {self.good!r}; expected two tokens")
        return self


class Tokens(Section):
    """Token shards beside the dataset: its documents tokenised, shuffled by `seed` and packed into sequences.

    `tokenizer` is a Hugging Face directory or JSON file, or `prior`: the tokenizer of `models.prior`. `concatenate`
    puts documents end to end and cuts; `best_fit` cuts none that fits a sequence, and pads. With `by_source` every
    shard holds one source, so that a trainer can weigh sources. `also` writes the shards in the formats of other
    trainers as well.
    """

    tokenizer: Text = "prior"
    sequence_length: Annotated[int, Field(ge=2, strict=True)] = 1024
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    seed: Annotated[int, Field(ge=0, strict=True)] = 0
    by_source: Flag = False
    prefix: Prefix | None = None
    control: Control | None = None
    also: list[Literal["olmo", "megatron", "mds"]] = []

    @property
    def has_mask(self) -> bool:
        """Whether some tokens have no loss."""
        return self.packing == "best_fit" or self.prefix is not None

    @model_validator(mode="after")
    def _refuse_mask(self) -> "Tokens":
        maskless = [name for name in self.also if name != "mds"]
        if maskless and self.has_mask:
            tokens, instead = (
                ("a prefix", "leave out `prefix`")
                if self.packing == "concatenate"
                else ("padding", "use `packing: concatenate`")
            )
            raise ValueError(
                f"{maskless[0]} does not say which tokens are {tokens} and have no loss; {instead}, or write only "
                "`also: [mds]`"
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
