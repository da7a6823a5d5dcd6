"""What is tokenised and how: the plan that the launcher makes and the workers of every pass over tokens follow."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import token_shards, train_language_models
from gristmill.pipelines.ledger import LedgerRow
from gristmill.pipelines.model_files import local_copy
from gristmill.pipelines.recipe_export import Tokens
from gristmill.pipelines.token_shards import FOLDER
from gristmill.pipelines.train_language_models import usable
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import Scorer

CELLS = ".cells"
COOL_DOWN = "cool_down"
"""Folder among the tokens with those of the cool-down."""


class RowGroup(NamedTuple):
    """A row group of one file of the dataset, with its bytes of text, about."""

    part: str
    number: int
    num_bytes: int


class Group(NamedTuple):
    """Documents that no sequence mixes with others.

    Args:
        folder: Where their shards lie: "" for the folder of tokens, or one in it.
        source: Of the documents; None: of all sources.
        num_shards: At least 1.
    """

    folder: str
    source: str | None
    num_shards: int


class TokenShardName(NamedTuple):
    """One shard of the plan.

    Args:
        group: Whose documents it holds.
        name: In its folder.
        number: In its folder, from 0.
    """

    group: Group
    name: str
    number: int

    @property
    def label(self) -> str:
        """What the ledger calls it."""
        return "-".join(filter(None, [self.group.folder, self.name.removesuffix(".arrow")]))


@dataclass(frozen=True)
class Rater:
    """Where the scores come from that control tokens tell of.

    Args:
        scorer: Whose column it is, before setup.
        fingerprint: The scorer's.
        column: Its name.
        lower_is_better: Direction.
        shards: File of the dataset -> shards of the corpus whose kept documents it holds.
    """

    scorer: Scorer
    fingerprint: str
    column: str
    lower_is_better: bool
    shards: dict[str, list[str]]


@dataclass(frozen=True)
class TokenPlan:
    """What is tokenised and how.

    Args:
        workspace: Where the dataset lies.
        selection: Its name.
        spec: What the recipe wants.
        tokenizer: Path of the tokenizer.
        identity: What the shards depend on; a file that carries it is not written again.
        row_groups: Of the dataset.
        groups: Of the documents, in the order of their shards.
        rater: Where control tokens come from, None without them.
    """

    workspace: Workspace
    selection: str
    spec: Tokens
    tokenizer: str
    identity: str
    row_groups: tuple[RowGroup, ...]
    groups: tuple[Group, ...]
    rater: Rater | None = None

    @property
    def folders(self) -> list[str]:
        """Where shards lie, below the folder of tokens, which comes first."""
        has_cool_down = self.spec.prefix is not None and self.spec.prefix.cool_down > 0
        return ["", COOL_DOWN] if has_cool_down else [""]

    @property
    def scores_sentences(self) -> bool:
        """Whether sentences are scored for control tokens."""
        return self.spec.control is not None and self.spec.control.per == "sentence"

    @cached_property
    def shards(self) -> list[TokenShardName]:
        """All shards, in the order of their cells."""
        shards = []
        for folder in self.folders:
            groups = [
                group for group in self.groups if group.folder == folder for _ in range(group.num_shards)
            ]
            names = token_shards.names_of(len(groups))
            shards += [
                TokenShardName(group, name, number)
                for number, (group, name) in enumerate(zip(groups, names, strict=True))
            ]
        return shards

    def identity_of(self, folder: str) -> str:
        """What the shards of a folder depend on, another for each folder."""
        return f"{self.identity}-{folder}" if folder else self.identity

    def part(self, group: int) -> str:
        """The path of the file of the dataset that holds a row group."""
        return self.workspace.dataset(self.selection, self.row_groups[group].part)

    def ledger_row(self, stage: str, group: int, num_documents: int, num_bytes: int) -> LedgerRow:
        """What a pass says of a row group of the dataset."""
        part, number, _ = self.row_groups[group]
        name = f"{part.removesuffix('.parquet')}-{number:03d}"
        return LedgerRow(stage, name, num_documents, num_documents, num_bytes=num_bytes)

    def path(self, *names: str) -> str:
        """A path among the tokens."""
        return self.workspace.dataset(self.selection, FOLDER, *filter(None, names))

    def shard(self, number: int) -> str:
        """The path of a shard, of all folders' shards."""
        shard = self.shards[number]
        return self.path(shard.group.folder, shard.name)

    def cells(self, group: int) -> str:
        """The file with the cells of one row group."""
        return self.path(CELLS, f"{group:05d}.arrow")

    def ratings(self, group: int) -> str:
        """The file with the scores that the control tokens of one row group follow."""
        return self.path(CELLS, f"ratings-{group:05d}.arrow")


def rate_stage(selection: str) -> str:
    """The ledger's name for scoring what control tokens stand before."""
    return f"rate:{selection}"


def divide_stage(selection: str) -> str:
    """The ledger's name for tokenising the files of a dataset."""
    return f"tokenise:{selection}"


def pack_stage(selection: str) -> str:
    """The ledger's name for packing the documents of a dataset."""
    return f"pack:{selection}"


def load_tokenizer(path: str) -> Tokenizer:
    """A tokenizer with an end of text.

    Raises:
        RecipeError: In one line, if it cannot be used.
    """
    place = "export.tokens.tokenizer"
    return usable(place, lambda: train_language_models.load_tokenizer(local_copy(path)))


def extended(tokenizer: Tokenizer, spec: Tokens) -> Tokenizer:
    """The tokenizer with the control tokens, where there are any."""
    return tokenizer if spec.control is None else tokenizer.with_tokens([spec.control.good, spec.control.bad])
