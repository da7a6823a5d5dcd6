"""Checkpoints of a training: weights and AdamW's moments in one safetensors file, with what else it needs to go on."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path, model: Any, optimizer: "torch.optim.Optimizer", metadata: Mapping[str, str]
) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: The file.
        model: Whose weights are kept.
        optimizer: AdamW over them.
        metadata: What else the training needs to go on.
    """
    from safetensors.torch import save_file

    tensors = {}
    for name, weight in model.named_parameters():
        tensors[f"weight.{name}"] = weight.detach()
        if weight in optimizer.state:  # not a weight that no step has used
            tensors |= {f"{moment}.{name}": optimizer.state[weight][moment] for moment in MOMENTS}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".tmp")
    save_file(tensors, aside, metadata=dict(metadata))
    os.replace(aside, path)


def read_metadata(path: Path) -> dict[str, str]:
    """What a checkpoint holds beside its tensors."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata


def restore_checkpoint(path: Path, model: Any, optimizer: "torch.optim.Optimizer", num_steps: int) -> None:
    """Put a model and its optimiser back to where they were.

    Args:
        path: The file.
        model: The same model, on its device.
        optimizer: AdamW over its weights.
        num_steps: Steps that the checkpoint has behind it.
    """
    import torch
    from safetensors import safe_open

    with safe_open(path, "pt", device=str(model.device)) as file, torch.no_grad():
        known = set(file.keys())
        for name, weight in model.named_parameters():
            weight.copy_(file.get_tensor(f"weight.{name}"))
            if f"{MOMENTS[0]}.{name}" not in known:
                continue
            moments = {moment: file.get_tensor(f"{moment}.{name}") for moment in MOMENTS}
            optimizer.state[weight] = {"step": torch.tensor(float(num_steps)), **moments}
