"""Export of tokens: the documents of a dataset, tokenised, shuffled once and packed into sequences.

    divide = each row group of the dataset -> its documents as tokens, in cells by a seeded hash of doc_id
    pack   = one cell of every row group -> documents in the order of that hash -> sequences -> one token shard

The manifest is written last; a folder without one holds no tokens.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import files, token_shards, train_language_models
from gristmill.pipelines.ledger import commit_ledger
from gristmill.pipelines.model_files import local_copy, model_path
from gristmill.pipelines.recipe import Recipe, Tokens
from gristmill.pipelines.token_shards import FOLDER, MANIFEST
from gristmill.pipelines.tokenise import (
    CELLS,
    Group,
    RowGroup,
    TokenPlan,
    divide_documents,
    divide_row,
    divide_stage,
    is_made,
    pack_row,
    pack_shard,
    pack_stage,
    read_accounts,
)
from gristmill.pipelines.train_language_models import usable
from gristmill.pipelines.trainer_formats import MDS_INDEX, mds_index
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import WorkspaceError

SHARD_BYTES = 64 << 20
BYTES_PER_TOKEN = 4
"""Bytes of text a token, about, by which the number of shards is planned."""


def tokenizer_path(workspace: Workspace, recipe: Recipe, spec: Tokens) -> str:
    """Where the tokenizer is: `prior` means that of the prior, which the workspace trains where no path is given."""
    if spec.tokenizer != "prior":
        return spec.tokenizer
    models = recipe.models
    return models.prior.path or models.tokenizer.path or model_path(workspace, "tokenizer")


def plan_tokens(workspace: Workspace, recipe: Recipe, spec: Tokens, dataset: dict[str, Any]) -> TokenPlan:
    """What has to be done for a dataset that is there.

    Args:
        workspace: Where it lies.
        recipe: Says where the tokenizer is.
        spec: What is wanted.
        dataset: The dataset's manifest.

    Raises:
        RecipeError: If the tokenizer cannot be used.
    """
    selection = dataset["selection"]
    path = tokenizer_path(workspace, recipe, spec)
    tokenizer = load_tokenizer(path)
    parts = [entry["name"] for entry in dataset["files"]]
    of_parts = files.in_parallel(lambda part: _row_groups(workspace.dataset(selection, part), part), parts)
    row_groups = tuple(group for groups in of_parts for group in groups)
    num_bytes = sum(group.num_bytes for group in row_groups)
    sizes = _bytes_of_sources(workspace, selection, row_groups) if spec.by_source else [(None, num_bytes)]
    itemsize = np.dtype(token_shards.token_dtype(tokenizer.vocab_size)).itemsize
    groups = tuple(
        Group(source, -(-num_bytes * itemsize // (BYTES_PER_TOKEN * SHARD_BYTES)))
        for source, num_bytes in sizes
    )
    said = repr((dataset["identity"], _tokenizer_digest(path), spec, groups))
    identity = blake2b(said.encode(), digest_size=16).hexdigest()
    return TokenPlan(workspace, selection, spec, path, identity, row_groups, groups)


def load_tokenizer(path: str) -> Tokenizer:
    """A tokenizer with an end of text.

    Raises:
        RecipeError: In one line, if it cannot be used.
    """
    place = "export.tokens.tokenizer"
    return usable(place, lambda: train_language_models.load_tokenizer(local_copy(path)))


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
    names = [plan.shard(number) for number in range(plan.num_shards)]
    manifest = plan.workspace.read_json("datasets", plan.selection, FOLDER, MANIFEST)
    if manifest is not None and manifest["identity"] == plan.identity:
        entries = [*manifest["shards"], *manifest["also"]]
        if all(files.in_parallel(lambda entry: files.exists(plan.path(entry["name"])), entries)):
            return manifest
    clear_tokens(plan.workspace, plan.selection, plan.identity)
    for _, elements, transform in token_passes(plan):
        run(elements, transform)
    cells = [plan.cells(group) for group in range(len(plan.row_groups))]
    divided = [divide_row(plan, group, _require_accounts(path)) for group, path in enumerate(cells)]
    accounts = files.in_parallel(lambda name: _require_accounts(plan.path(name)), names)
    _check_conservation(plan, dataset, accounts)
    packed = [pack_row(plan, number, account) for number, account in enumerate(accounts)]
    commit_ledger(plan.workspace, divide_stage(plan.selection), divided)
    commit_ledger(plan.workspace, pack_stage(plan.selection), packed)
    files.delete_folder(plan.path(CELLS))
    return _commit_manifest(plan, dataset, names, accounts)


def token_passes(plan: TokenPlan) -> Iterator[tuple[str, Sequence[int], beam.PTransform]]:
    """Stage, elements and transform of each pipeline, in order."""
    yield divide_stage(plan.selection), range(len(plan.row_groups)), "DivideDocuments" >> _Each(_Divide(plan))
    yield pack_stage(plan.selection), range(plan.num_shards), "PackShards" >> _Each(_Pack(plan))


def clear_tokens(workspace: Workspace, selection: str, identity: str) -> None:
    """Make room for other tokens: the manifest goes first; what lies there stays if this identity left it."""
    folder = workspace.dataset(selection, FOLDER)
    files.delete([files.join(folder, MANIFEST)])
    listed = [item.path for item in files.list_folder(folder)]
    if not any(path.endswith(".arrow") and is_made(path, identity) for path in listed):
        files.delete(listed)


class _Each(beam.PTransform):
    """Numbers -> what a DoFn makes of each."""

    def __init__(self, worker: beam.DoFn) -> None:
        super().__init__()
        self.worker = worker

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        """Wire it up."""
        return numbers | beam.ParDo(self.worker)


class _Divide(beam.DoFn):
    """Numbers of row groups -> nothing; leaves their cells."""

    def __init__(self, plan: TokenPlan) -> None:
        self.plan = plan

    def setup(self) -> None:
        self.tokenizer = load_tokenizer(self.plan.tokenizer)

    def process(self, group: int) -> None:
        if not is_made(self.plan.cells(group), self.plan.identity):
            divide_documents(self.plan, group, self.tokenizer)


class _Pack(beam.DoFn):
    """Numbers of shards -> nothing; leaves the shards."""

    def __init__(self, plan: TokenPlan) -> None:
        self.plan = plan

    def setup(self) -> None:
        self.tokenizer = load_tokenizer(self.plan.tokenizer)

    def process(self, number: int) -> None:
        if not is_made(self.plan.path(self.plan.shard(number)), self.plan.identity):
            pack_shard(self.plan, number, self.tokenizer)


def _check_conservation(plan: TokenPlan, dataset: dict[str, Any], accounts: Sequence[dict[str, Any]]) -> None:
    found = sum(account["num_documents"] for account in accounts)
    if found != dataset["num_documents"]:
        raise WorkspaceError(
            f"{plan.path()}: {found:,} documents were tokenised, the dataset has {dataset['num_documents']:,}; "
            "documents were lost or gained, which is a bug"
        )
    for number, account in enumerate(accounts):
        num_in = account["num_tokens_of_documents"] + account["num_ends_of_text"]
        num_out = account["num_tokens"] + account["num_tokens_dropped"]
        if num_in != num_out:
            raise WorkspaceError(
                f"{plan.path(plan.shard(number))}: {num_in:,} tokens in, {num_out:,} out and dropped; tokens were lost "
                "or gained, which is a bug"
            )


def _commit_manifest(
    plan: TokenPlan, dataset: dict[str, Any], names: Sequence[str], accounts: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    tokenizer = load_tokenizer(plan.tokenizer)
    dtype = np.dtype(token_shards.token_dtype(tokenizer.vocab_size))
    also = sorted(name for account in accounts for name in account["also"])
    if "mds" in plan.spec.also:
        rows = [account["num_rows"] for account in accounts]
        files.commit_bytes(plan.path(MDS_INDEX), mds_index(rows, dtype, plan.spec.sequence_length))
        also.append(MDS_INDEX)
    entries = files.in_parallel(lambda name: _entry(plan, name), [*names, *also])
    totals = {
        name: sum(account[name] for account in accounts)
        for name in sorted({name for account in accounts for name in account if name.startswith("num_")})
    }
    sources: Counter[str] = Counter()
    for account in accounts:
        sources.update(account["sources"])
    manifest = {
        "identity": plan.identity,
        "dataset": dataset["identity"],
        "tokenizer": {
            "path": plan.spec.tokenizer,
            "blake2b": _tokenizer_digest(plan.tokenizer),
            "vocab_size": tokenizer.vocab_size,
            "end_of_text": tokenizer.end_of_text,
        },
        **plan.spec.model_dump(include={"sequence_length", "packing", "seed"}),
        "dtype": dtype.name,
        **totals,
        "sources": dict(sorted(sources.items())),
        "shards": [
            {**entry, "num_rows": account["num_rows"], **({"source": source} if source is not None else {})}
            for entry, account, source in zip(entries, accounts, plan.shard_sources, strict=False)
        ],
        "also": entries[len(names) :],
    }
    plan.workspace.commit_json(manifest, "datasets", plan.selection, FOLDER, MANIFEST)
    return manifest


def _entry(plan: TokenPlan, name: str) -> dict[str, Any]:
    path = plan.path(name)
    with files.open_read(path) as file:
        return {
            "name": name,
            "num_bytes": files.file_info(path).size,
            "blake2b": token_shards.digest(file),
        }


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


def _bytes_of_sources(
    workspace: Workspace, selection: str, row_groups: Sequence[RowGroup]
) -> Sequence[tuple[str | None, int]]:
    """Bytes of text of each source, about: a row group's by how many of its documents are of the source."""

    def count(group: RowGroup) -> Counter[str]:
        with files.open_read(workspace.dataset(selection, group.part)) as file:
            sources = pq.ParquetFile(file).read_row_group(group.number, ["source"])["source"]
        found = pc.value_counts(sources).to_pylist()
        return Counter(
            {item["values"]: max(group.num_bytes * item["counts"] // len(sources), 1) for item in found}
        )

    sizes: Counter[str] = Counter()
    for of_group in files.in_parallel(count, row_groups):
        sizes.update(of_group)
    return sorted(sizes.items())
