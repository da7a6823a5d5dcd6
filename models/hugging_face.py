"""What models in Hugging Face directories share: checks from their small files, safe loading, a digest, a device."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.models.devices import lease_device
from gristmill.models.tokenizer import Tokenizer, tokenizer_file

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"


class ModelError(ValueError):
    """A model directory that cannot be used, and why."""


def check_files(path: str, kind: str) -> tuple[dict[str, Any], Tokenizer]:
    """Refuse a directory that cannot hold a usable model, from its small files alone.

    Args:
        path: The directory.
        kind: What the model is, for errors.

    Returns:
        The model's configuration, and its tokenizer.

    Raises:
        ModelError: If a part is missing, weights are pickled, or the tokenizer does not match.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file():
        raise ModelError(f"{path}: no {kind} here; expected a Hugging Face directory with {CONFIG}")
    if not any(folder.glob("*.safetensors")):
        pickled = [file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in folder.glob(pattern)]
        found = f"found {pickled[0]}, a pickle, which can run code" if pickled else "found none"
        raise ModelError(
            f"{path}: expected weights as .safetensors; {found}; convert it with save_pretrained"
        )
    if not tokenizer_file(path).is_file():
        raise ModelError(f"{path}: no tokenizer.json; expected the model's own tokenizer beside its weights")
    config = _read_config(folder / CONFIG, kind)
    tokenizer = Tokenizer.load(path)
    num_known = text_config(config)["vocab_size"]
    if tokenizer.vocab_size > num_known:
        raise ModelError(
            f"{path}: the tokenizer makes tokens up to {tokenizer.vocab_size - 1}, the model knows "
            f"{num_known}; expected the tokenizer that the model was trained with"
        )
    return config, tokenizer


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the part of a model that reads text."""
    part: dict[str, Any] = config.get("text_config", config)
    return part


def _read_config(file: Path, kind: str) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(file.read_text())
        is_known = isinstance(text_config(config)["vocab_size"], int)
    except (ValueError, AttributeError, TypeError, KeyError):
        is_known = False
    if not is_known:
        raise ModelError(f"{file}: no configuration of a {kind}; expected JSON with vocab_size")
    return config


def load_model(family: Any, path: str, dtype: str, *, unused: tuple[str, ...] = (), **options: Any) -> Any:
    """Load a model in evaluation mode, weights from safetensors only, no code but that of transformers.

    Args:
        family: A class of transformers that loads models, `AutoModelForCausalLM` for one.
        path: Its directory, checked before.
        dtype: `float32`, `bfloat16`, or `auto`: bfloat16 where there is a GPU.
        unused: What the names of weights begin with that may be missing, since nobody reads what they give.
        options: Others of `from_pretrained`.

    Raises:
        ModelError: If weights are missing, of another shape, or not finite.
    """
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    if dtype == "auto":
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
    try:
        model, report = family.from_pretrained(
            path,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **options,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{path}: {str(error).splitlines()[0]}") from error
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if missing := missing + sorted(str(key) for key in report["mismatched_keys"]):
        raise ModelError(f"{path}: weights are missing or of another shape: {', '.join(missing[:3])}")
    for name, weight in model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            raise ModelError(f"{path}: {name} holds NaN or infinite weights; train or fetch the model again")
    return model.eval()


@contextmanager
def on_device(model: Any) -> "Iterator[torch.device]":
    """A model on the device that this process may use, alone there if it is a GPU."""
    import torch

    with lease_device() as device:
        model.to(device)
        try:
            yield device
        finally:
            if device.type != "cpu":  # the next process finds the memory free
                model.to("cpu")
                torch.cuda.empty_cache()


def digest_of(path: str, beside: Iterable[str]) -> str:
    """BLAKE2b of weights, tokenizer and some files beside them where they exist, 32 hexadecimal digits."""
    folder = Path(path)
    small = [folder / name for name in beside]
    files = [*sorted(folder.glob("*.safetensors")), tokenizer_file(path), *filter(Path.is_file, small)]
    return _digest_of(tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@lru_cache
def _digest_of(files: tuple[tuple[str, int, int], ...]) -> str:
    found = hashlib.blake2b(digest_size=16)
    for path, _, _ in files:
        with open(path, "rb") as file:
            found.update(hashlib.file_digest(file, "blake2b").digest())
    return found.hexdigest()
