"""The manifests of token shards: what ties them to a dataset, and accounts for every token."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from gristmill.models.tokenizer import Tokenizer
from gristmill.pipelines import files, token_shards
from gristmill.pipelines.control_tokens import Controls
from gristmill.pipelines.model_files import local_copy
from gristmill.pipelines.token_plan import TokenPlan, extended, load_tokenizer
from gristmill.pipelines.token_shards import FOLDER, MANIFEST
from gristmill.pipelines.trainer_formats import MDS_INDEX, mds_index

EXTENDED = "tokenizer"
"""Folder among the tokens with the tokenizer that knows the control tokens."""


def commit_manifests(
    plan: TokenPlan,
    dataset: dict[str, Any],
    accounts: Sequence[dict[str, Any]],
    controls: Controls | None,
) -> dict[str, Any]:
    """Describe every folder, the one of tokens last: its manifest names all files of the others.

    Args:
        plan: What was tokenised.
        dataset: The dataset's manifest.
        accounts: Of every shard of the plan.
        controls: What decided on control tokens.

    Returns:
        The manifest of the tokens.
    """
    beside: list[str] = []
    for folder in reversed(plan.folders):
        of_folder = [
            (shard, account)
            for shard, account in zip(plan.shards, accounts, strict=True)
            if shard.group.folder == folder
        ]
        manifest = _describe(plan, dataset, [account for _, account in of_folder], controls)
        also = sorted(name for _, account in of_folder for name in account["also"])
        if "mds" in plan.spec.also:
            rows = [account["num_rows"] for _, account in of_folder]
            dtype, length = np.dtype(manifest["dtype"]), plan.spec.sequence_length
            index = mds_index(rows, dtype, length, has_mask=plan.spec.has_mask)
            also.append(_join(folder, MDS_INDEX))
            files.commit_bytes(plan.path(also[-1]), index)
        also += _save_extended(plan, folder)
        if folder == "":
            also += beside
        names = [_join(folder, shard.name) for shard, _ in of_folder]
        entries = files.in_parallel(lambda name: _entry(plan, name), [*names, *also])
        manifest["identity"] = plan.identity_of(folder)
        manifest["shards"] = [
            {
                **entry,
                "name": shard.name,
                "num_rows": account["num_rows"],
                **({} if shard.group.source is None else {"source": shard.group.source}),
            }
            for entry, (shard, account) in zip(entries, of_folder, strict=False)
        ]
        manifest["also"] = [
            {**entry, "name": entry["name"].removeprefix(f"{folder}/")} for entry in entries[len(names) :]
        ]
        plan.workspace.commit_json(
            manifest, "datasets", plan.selection, FOLDER, *filter(None, [folder]), MANIFEST
        )
        beside += [_join(folder, MANIFEST), *names, *also]
    return manifest


def _describe(
    plan: TokenPlan,
    dataset: dict[str, Any],
    accounts: Sequence[dict[str, Any]],
    controls: Controls | None,
) -> dict[str, Any]:
    """What a manifest says of the tokens in its folder, and where they come from."""
    tokenizer = extended(load_tokenizer(plan.tokenizer), plan.spec)
    totals: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for account in accounts:
        totals.update({name: value for name, value in account.items() if name.startswith("num_")})
        sources.update(account["sources"])
    manifest = {
        "dataset": dataset["identity"],
        "tokenizer": {
            "path": plan.spec.tokenizer,
            "blake2b": Tokenizer.digest(local_copy(plan.tokenizer)),
            "vocab_size": tokenizer.vocab_size,
            "end_of_text": tokenizer.end_of_text,
        },
        **plan.spec.model_dump(include={"sequence_length", "packing", "seed"}),
        "dtype": np.dtype(token_shards.token_dtype(tokenizer.vocab_size)).name,
        **dict(sorted(totals.items())),
        "sources": dict(sorted(sources.items())),
    }
    if plan.spec.prefix is not None:
        manifest["prefix"] = plan.spec.prefix.model_dump()
    if plan.spec.control is not None and plan.rater is not None:
        manifest["tokenizer"]["extended"] = EXTENDED
        manifest["control"] = {
            **plan.spec.control.model_dump(),
            "scorer": plan.rater.scorer.name,
            "fingerprint": plan.rater.fingerprint,
            "direction": "lowest" if plan.rater.lower_is_better else "highest",
            "threshold": None if controls is None else controls.threshold,
            "good_token": tokenizer.token(plan.spec.control.good),
            "bad_token": tokenizer.token(plan.spec.control.bad),
        }
    return manifest


def _save_extended(plan: TokenPlan, folder: str) -> list[str]:
    """Put the tokenizer with the control tokens beside the tokens; its files."""
    if plan.spec.control is None:
        return []
    names = []
    with TemporaryDirectory() as made:
        extended(load_tokenizer(plan.tokenizer), plan.spec).save(Path(made))
        for file in sorted(Path(made).iterdir()):
            names.append(_join(folder, f"{EXTENDED}/{file.name}"))
            files.commit_bytes(plan.path(names[-1]), file.read_bytes())
    return names


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _entry(plan: TokenPlan, name: str) -> dict[str, Any]:
    path = plan.path(name)
    with files.open_read(path) as file:
        return {
            "name": name,
            "num_bytes": files.file_info(path).size,
            "blake2b": token_shards.digest(file),
        }
