"""Export of tokens: the documents of a dataset, tokenised, shuffled once and packed into sequences.

    rate   = only for control tokens: each row group of the dataset -> scores of its documents or sentences
    divide = each row group of the dataset -> its documents as tokens, in cells by a seeded hash of doc_id
    pack   = one cell of every row group -> documents in the order of that hash -> sequences -> one token shard

The manifests are written last; a folder without one holds no tokens.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from math import ceil
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import control_tokens, files, token_shards
from gristmill.pipelines.ledger import commit_ledger
from gristmill.pipelines.model_files import local_copy, localised, model_path
from gristmill.pipelines.recipe import Recipe
from gristmill.pipelines.recipe_export import Tokens
from gristmill.pipelines.score_documents import ACCELERATOR_HINT
from gristmill.pipelines.token_manifest import commit_manifests
from gristmill.pipelines.token_plan import (
    CELLS,
    COOL_DOWN,
    Group,
    Rater,
    RowGroup,
    TokenPlan,
    divide_stage,
    extended,
    load_tokenizer,
    pack_stage,
    rate_stage,
)
from gristmill.pipelines.token_shards import FOLDER, MANIFEST
from gristmill.pipelines.tokenise import (
    divide_documents,
    is_made,
    pack_row,
    pack_shard,
    read_accounts,
)
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import Scorer, WorkspaceError

SHARD_BYTES = 64 << 20
BYTES_PER_TOKEN = 4
"""Bytes of text a token, about, by which the number of shards is planned."""


def tokenizer_path(workspace: Workspace, recipe: Recipe, spec: Tokens) -> str:
    """Where the tokenizer is: `prior` means that of the prior, which the workspace trains where no path is given."""
    if spec.tokenizer != "prior":
        return spec.tokenizer
    models = recipe.models
    return models.prior.path or models.tokenizer.path or model_path(workspace, "tokenizer")


def plan_tokens(
    workspace: Workspace,
    recipe: Recipe,
    spec: Tokens,
    dataset: dict[str, Any],
    scorers: Sequence[Scorer] = (),
) -> TokenPlan:
    """What has to be done for a dataset that is there.

    Args:
        workspace: Where it lies.
        recipe: Says where the tokenizer is.
        spec: What is wanted.
        dataset: The dataset's manifest.
        scorers: Before setup; one of them makes the column of control tokens.

    Raises:
        RecipeError: If the tokenizer or the column cannot be used.
    """
    selection = dataset["selection"]
    path = tokenizer_path(workspace, recipe, spec)
    tokenizer = extended(load_tokenizer(path), spec)
    parts = [entry["name"] for entry in dataset["files"]]
    of_parts = files.in_parallel(lambda part: _row_groups(workspace.dataset(selection, part), part), parts)
    row_groups = tuple(group for groups in of_parts for group in groups)
    groups = _plan_groups(workspace, selection, spec, row_groups, tokenizer)
    rater = find_rater(spec, dataset, scorers)
    version = rater.fingerprint if rater is not None else ""
    said = repr((dataset["identity"], _tokenizer_digest(path), spec, groups, version))
    identity = blake2b(said.encode(), digest_size=16).hexdigest()
    return TokenPlan(workspace, selection, spec, path, identity, row_groups, groups, rater)


def stand_in_plan(
    workspace: Workspace, recipe: Recipe, spec: Tokens, selection: str, scorers: Sequence[Scorer]
) -> TokenPlan:
    """A plan of the same shape for a dataset that is not there yet, whose pipelines may be translated but not run."""
    rater = None
    if spec.control is not None:
        scorer, lower_is_better = control_tokens.find_column(spec.control, scorers)
        rater = Rater(scorer, "", spec.control.by, lower_is_better, {})
    path = tokenizer_path(workspace, recipe, spec)
    row_groups, groups = (RowGroup("train.parquet", 0, 0),), (Group("", None, 1),)
    return TokenPlan(workspace, selection, spec, path, "", row_groups, groups, rater)


def find_rater(spec: Tokens, dataset: dict[str, Any], scorers: Sequence[Scorer]) -> Rater | None:
    """Where the scores of control tokens come from; None where there are no control tokens.

    Raises:
        RecipeError: If no scorer makes the column, or the column cannot be used.
        WorkspaceError: If the dataset does not say which shards of the corpus its files come from.
    """
    if spec.control is None:
        return None
    scorer, lower_is_better = control_tokens.find_column(spec.control, scorers)
    try:
        shards = {entry["name"]: entry["shards"] for entry in dataset["files"]}
    except KeyError as error:
        raise WorkspaceError(
            f"dataset {dataset['selection']!r} was made by an earlier version, and does not say which shards its files "
            "come from; delete its manifest.json and export again"
        ) from error
    return Rater(scorer, localised(scorer).fingerprint(), spec.control.by, lower_is_better, shards)


def export_tokens(
    plan: TokenPlan,
    dataset: dict[str, Any],
    run: Callable[[Sequence[Any], beam.PTransform], object],
) -> dict[str, Any]:
    """Divide, pack, check the accounts and write the manifest, unless it is there.

    Args:
        plan: What has to be done.
        dataset: The dataset's manifest.
        run: Runs a transform over elements as a Beam pipeline.

    Returns:
        The manifest.

    Raises:
        WorkspaceError: If a document or a token was lost.
    """
    manifest = plan.workspace.read_json("datasets", plan.selection, FOLDER, MANIFEST)
    if manifest is not None and manifest["identity"] == plan.identity:
        entries = [*manifest["shards"], *manifest["also"]]
        if all(files.in_parallel(lambda entry: files.exists(plan.path(entry["name"])), entries)):
            return manifest
    clear_tokens(plan.workspace, plan.selection, plan.identity)
    for stage, elements, transform in token_passes(plan):
        run(elements, transform)
        if plan.spec.control is not None and stage == rate_stage(plan.selection):
            control_tokens.commit_threshold(plan, plan.spec.control)
    accounts = _check_accounts(plan, dataset)
    tokenizer = extended(load_tokenizer(plan.tokenizer), plan.spec)
    controls = control_tokens.read_controls(plan, tokenizer)
    files.delete_folder(plan.path(CELLS))
    return commit_manifests(plan, dataset, accounts, controls)


def token_passes(plan: TokenPlan) -> Iterator[tuple[str, Sequence[int], beam.PTransform]]:
    """Stage, elements and transform of each pipeline, in order."""
    groups, selection = range(len(plan.row_groups)), plan.selection
    if plan.rater is not None:
        by_model = plan.rater.scorer.accelerator and plan.scores_sentences
        yield (
            rate_stage(selection),
            groups,
            "RateDocuments" >> _Each(_Rate(plan, plan.rater), accelerator=by_model),
        )
    yield divide_stage(selection), groups, "DivideDocuments" >> _Each(_Divide(plan))
    yield pack_stage(selection), range(len(plan.shards)), "PackShards" >> _Each(_Pack(plan))


def clear_tokens(workspace: Workspace, selection: str, identity: str) -> None:
    """Make room for other tokens: the manifest goes first; what lies there stays if this identity left it."""
    folder = workspace.dataset(selection, FOLDER)
    files.delete([files.join(folder, MANIFEST), files.join(folder, COOL_DOWN, MANIFEST)])
    listed = [item.path for item in files.list_folder(folder)]
    if not any(path.endswith(".arrow") and is_made(path, identity) for path in listed):
        files.delete(listed)


class _Each(beam.PTransform):
    """Numbers -> what a DoFn makes of each, on a GPU where it wants one."""

    def __init__(self, worker: beam.DoFn, *, accelerator: bool = False) -> None:
        super().__init__()
        self.worker = worker
        self.accelerator = accelerator

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        work = beam.ParDo(self.worker)
        if self.accelerator:
            work = work.with_resource_hints(accelerator=ACCELERATOR_HINT)
        return numbers | work


class _Rate(beam.DoFn):
    """Numbers of row groups -> nothing; leaves the scores that control tokens follow."""

    def __init__(self, plan: TokenPlan, rater: Rater) -> None:
        self.plan = plan
        self.rater = rater

    def setup(self) -> None:
        self.scorer = None
        if self.plan.scores_sentences:
            self.scorer = localised(self.rater.scorer)
            self.scorer.setup()

    def process(self, group: int) -> None:
        if not is_made(self.plan.ratings(group), self.plan.identity):
            control_tokens.rate(self.plan, self.rater, group, self.scorer)


class _Divide(beam.DoFn):
    """Numbers of row groups -> nothing; leaves their cells."""

    def __init__(self, plan: TokenPlan) -> None:
        self.plan = plan

    def setup(self) -> None:
        self.tokenizer = load_tokenizer(self.plan.tokenizer)
        self.controls = control_tokens.read_controls(self.plan, extended(self.tokenizer, self.plan.spec))

    def process(self, group: int) -> None:
        if not is_made(self.plan.cells(group), self.plan.identity):
            divide_documents(self.plan, group, self.tokenizer, self.controls)


class _Pack(beam.DoFn):
    """Numbers of shards -> nothing; leaves the shards."""

    def __init__(self, plan: TokenPlan) -> None:
        self.plan = plan

    def setup(self) -> None:
        self.tokenizer = extended(load_tokenizer(self.plan.tokenizer), self.plan.spec)

    def process(self, number: int) -> None:
        identity = self.plan.identity_of(self.plan.shards[number].group.folder)
        if not is_made(self.plan.shard(number), identity):
            pack_shard(self.plan, number, self.tokenizer)


def _check_accounts(plan: TokenPlan, dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """The accounts of all shards, once no document and no token is lost; they go into the ledger."""
    groups = range(len(plan.row_groups))
    shards = [plan.shard(number) for number in range(len(plan.shards))]
    accounts = files.in_parallel(_require_accounts, shards)
    _check_conservation(plan, dataset, accounts)
    passes = [(divide_stage(plan.selection), plan.cells)]
    if plan.rater is not None:
        passes.insert(0, (rate_stage(plan.selection), plan.ratings))
    for stage, path_of in passes:
        said = files.in_parallel(_require_accounts, map(path_of, groups))
        rows = [
            plan.ledger_row(stage, group, account["num_documents"], account["num_bytes"])
            for group, account in enumerate(said)
        ]
        commit_ledger(plan.workspace, stage, rows)
    packed = [pack_row(plan, number, account) for number, account in enumerate(accounts)]
    commit_ledger(plan.workspace, pack_stage(plan.selection), packed)
    return accounts


def _check_conservation(plan: TokenPlan, dataset: dict[str, Any], accounts: Sequence[dict[str, Any]]) -> None:
    found = sum(account["num_documents"] for account in accounts)
    expected = dataset.get("num_windows", dataset["num_documents"])
    if found != expected:
        raise WorkspaceError(
            f"{plan.path()}: {found:,} documents were tokenised, the dataset has {expected:,}; documents were lost or "
            "gained, which is a bug"
        )
    kinds = ("num_tokens_of_documents", "num_prefix_tokens", "num_control_tokens", "num_ends_of_text")
    for number, account in enumerate(accounts):
        num_in = sum(account[kind] for kind in kinds)
        num_out = account["num_tokens"] + account["num_tokens_dropped"]
        if num_in != num_out:
            raise WorkspaceError(
                f"{plan.shard(number)}: {num_in:,} tokens in, {num_out:,} out and dropped; tokens were lost or gained, "
                "which is a bug"
            )


def _require_accounts(path: str) -> dict[str, Any]:
    accounts = read_accounts(path)
    if accounts is None:
        raise WorkspaceError(f"{path}: missing or damaged, though it was just written; run the export again")
    return accounts


def _tokenizer_digest(path: str) -> str:
    return Tokenizer.digest(local_copy(path))


def _row_groups(path: str, part: str) -> list[RowGroup]:
    with files.open_read(path) as file:
        metadata = pq.read_metadata(file)
    column = metadata.schema.to_arrow_schema().get_field_index("text")
    sizes = (
        metadata.row_group(number).column(column).total_uncompressed_size
        for number in range(metadata.num_row_groups)
    )
    return [RowGroup(part, number, size) for number, size in enumerate(sizes)]


def _plan_groups(
    workspace: Workspace, selection: str, spec: Tokens, row_groups: Sequence[RowGroup], tokenizer: Tokenizer
) -> tuple[Group, ...]:
    """The documents that sequences do not mix, with enough shards for about their bytes."""
    num_bytes = sum(group.num_bytes for group in row_groups)
    sizes: Sequence[tuple[str | None, int]] = [(None, num_bytes)] if row_groups else []
    if spec.by_source:
        sizes = _bytes_of_sources(workspace, selection, row_groups)
    itemsize = np.dtype(token_shards.token_dtype(tokenizer.vocab_size)).itemsize
    cool_down = spec.prefix.cool_down if spec.prefix is not None else 0.0
    shares = {"": 1.0 - cool_down, COOL_DOWN: cool_down}
    return tuple(
        Group(folder, source, max(ceil(num_bytes * share * itemsize / (BYTES_PER_TOKEN * SHARD_BYTES)), 1))
        for folder, share in shares.items()
        if share > 0
        for source, num_bytes in sizes
    )


def _bytes_of_sources(
    workspace: Workspace, selection: str, row_groups: Sequence[RowGroup]
) -> Sequence[tuple[str | None, int]]:
    """Bytes of text of each source, about: a row group's by how many of its documents are of the source."""

    def count(group: RowGroup) -> Counter[str]:
        with files.open_read(workspace.dataset(selection, group.part)) as file:
            sources = pq.ParquetFile(file).read_row_group(group.number, ["source"], use_threads=False)[
                "source"
            ]
        found = pc.value_counts(sources).to_pylist()
        return Counter(
            {item["values"]: max(group.num_bytes * item["counts"] // len(sources), 1) for item in found}
        )

    sizes: Counter[str] = Counter()
    for of_group in files.in_parallel(count, row_groups):
        sizes.update(of_group)
    return sorted(sizes.items())
