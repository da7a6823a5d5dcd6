"""Auxiliary models in the workspace: `models/<name>/`, whole once its manifest is there.

Models are trained and loaded on local disks; those of a workspace on a bucket are copied to a cache first.
"""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from gristmill.pipelines import files
from gristmill.pipelines.workspace import Workspace
from gristmill.scorers.base import Scorer
from gristmill.scorers.registry import path_options

MANIFEST = "manifest.json"
LOG_FILE = "training_log.parquet"
"""Beside a language model: its loss, step by step."""
STRENGTHS_FILE = "strengths.parquet"
"""Beside the classifier of predictive strength: the documents whose strength was measured."""
PROXIES_FILE = "proxies.parquet"
"""Beside the weights of `meta_rater`: what each proxy was trained on and achieved."""
BLOCK_BYTES = 1 << 24
AnyScorer = TypeVar("AnyScorer", bound=Scorer)


def model_path(workspace: Workspace, name: str) -> str:
    """The folder of a model trained in the workspace."""
    return workspace.path("models", name)


def read_manifest(workspace: Workspace, name: str) -> dict[str, Any] | None:
    """What a trained model was made from, None where there is none."""
    found: dict[str, Any] | None = workspace.read_json("models", name, MANIFEST)
    return found


def commit_model(workspace: Workspace, name: str, made: Path, manifest: dict[str, Any]) -> None:
    """Put a model's files in their place, its manifest last; an earlier model of that name goes first.

    Args:
        workspace: Where to.
        name: Of the model.
        made: Local folder with its files; folders in it stay folders.
        manifest: What it was made from.
    """
    folder = model_path(workspace, name)
    files.delete([workspace.path("models", name, MANIFEST)])
    files.delete([item.path for item in files.list_folder(folder)])
    for file in sorted(filter(Path.is_file, made.rglob("*"))):
        path = files.join(folder, file.relative_to(made).as_posix())
        with files.committed(path) as target, file.open("rb") as source:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
    workspace.commit_json(manifest, "models", name, MANIFEST)


def work_folder(workspace: Workspace, name: str) -> Path:
    """A local folder in which a model is trained; a training that was killed goes on from what lies there."""
    if files.is_local(workspace.root):
        return Path(model_path(workspace, f"{files.TEMPORARY_PREFIX}{name}"))
    return _cache(workspace.root) / name


def claim_folder(folder: Path, identity: str) -> None:
    """Make a work folder one's own: what an interrupted training of something else left there goes."""
    marker = folder / "identity"
    if not (marker.is_file() and marker.read_text() == identity):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        marker.write_text(identity)


def digest(*said: Any) -> str:
    """Hash of what a training depends on."""
    return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


def local_copy(path: str) -> str:
    """A path on this machine's disks with the same content; files and folders on a bucket are copied to a cache.

    Where there is nothing, the path itself, so that errors name it.
    """
    if files.is_local(path) or not (listed := files.list_files(path)):
        return path
    root = path.rstrip("/")
    folder = _cache(root)
    copies = {folder / (item.path.removeprefix(root).lstrip("/") or Path(root).name): item for item in listed}
    for target, item in copies.items():
        modified = round(item.modified * 1e9)
        if not target.exists() or target.stat().st_mtime_ns != modified:
            with files.open_read(item.path) as source, files.committed(str(target)) as copy:
                shutil.copyfileobj(source, copy, BLOCK_BYTES)
            os.utime(target, ns=(modified, modified))
    for file in folder.rglob("*"):  # of a model that lay there before
        if file.is_file() and file not in copies and not file.name.startswith(files.TEMPORARY_PREFIX):
            file.unlink(missing_ok=True)
    return str(folder / Path(root).name if len(listed) == 1 and listed[0].path == root else folder)


def localised(scorer: AnyScorer) -> AnyScorer:
    """The same scorer with its models on this machine."""

    def local(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: local(path) for name, path in value.items()}
        return local_copy(value) if isinstance(value, str) else value

    paths = {option: local(getattr(scorer, option)) for option in path_options(scorer.name)}
    return replace(scorer, **paths) if any(paths.values()) else scorer  # type: ignore[type-var]


def _cache(path: str) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return root / "gristmill" / "models" / hashlib.blake2b(path.encode(), digest_size=8).hexdigest()
