"""A reference trainer: a language model from token shards, on the CPU or on GPUs, resumed to the bit after a kill.

    python -m gristmill.pipelines.reference_trainer mill/datasets/small/tokens model --size 1m --steps 1000
    torchrun --nproc-per-node 8 -m gristmill.pipelines.reference_trainer mill/datasets/small/tokens model --size 150m

It shows what a trainer owes the feed: a rank, and a checkpoint that holds the feed's state beside the weights.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch
from torch import distributed
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from gristmill.models.checkpoint import read_metadata, restore_checkpoint, save_checkpoint
from gristmill.models.language_model import SIZES, make_model
from gristmill.models.training import TrainingPlan, learning_rate
from gristmill.pipelines.feed import TokenFeed
from gristmill.pipelines.token_shards import read_manifest

CHECKPOINT = "checkpoint.safetensors"


@click.command()
@click.argument("tokens", type=click.Path(exists=True, file_okay=False))
@click.argument("output", type=click.Path(file_okay=False))
@click.option("--size", type=click.Choice(list(SIZES)), default="1m", show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Of all ranks.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Peak of the learning rate.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--every", type=click.IntRange(min=1), default=100, show_default=True, help="Steps a checkpoint."
)
def main(
    tokens: str, output: str, size: str, steps: int, batch_size: int, rate: float, seed: int, every: int
) -> None:
    """Train a language model of a named SIZE on the token shards in TOKENS; checkpoints and model go to OUTPUT."""
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    device = _device()
    if world_size > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    manifest = read_manifest(Path(tokens))
    plan = TrainingPlan(learning_rate=rate, seed=seed)
    feed = TokenFeed(
        tokens,
        batch_size=batch_size,
        rank=rank,
        world_size=world_size,
        seed=seed,
        epochs=None,
        segments=manifest["packing"] == "best_fit",
    )
    architecture = replace(SIZES[size], context=manifest["sequence_length"])
    vocab_size, end_of_text = (manifest["tokenizer"][name] for name in ("vocab_size", "end_of_text"))
    model = make_model(architecture, vocab_size, end_of_text, seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), betas=plan.betas, weight_decay=plan.weight_decay)
    path = Path(output) / CHECKPOINT
    start = restore(path, model, optimizer, feed) if path.is_file() else 0
    parallel = DistributedDataParallel(model) if world_size > 1 else model
    clock = _Clock(batch_size * manifest["sequence_length"])
    batches = iter(feed)
    for step in range(start, steps):
        with clock.waiting():
            batch = {name: values.to(device) for name, values in next(batches).items()}
        loss = take_step(parallel, optimizer, batch, learning_rate(step, steps, plan), plan.max_norm)
        if rank == 0 and ((step + 1) % every == 0 or step + 1 == steps):
            click.echo(f"step {step + 1}: loss {loss.item():.4f}, {clock.rates(step + 1 - start)}")
            save(path, model, optimizer, step + 1, feed.state_dict())
    if rank == 0:
        model.save_pretrained(output)
    if world_size > 1:
        distributed.destroy_process_group()


def take_step(
    model: Any, optimizer: torch.optim.Optimizer, batch: dict[str, torch.Tensor], rate: float, max_norm: float
) -> torch.Tensor:
    """One step of the optimiser; the loss of this rank's part of the batch."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = batch_loss(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm)
    optimizer.step()
    optimizer.zero_grad()
    return loss


def batch_loss(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy over the tokens that count; documents packed into one sequence do not see each other."""
    tokens = batch["tokens"]
    arguments: dict[str, Any] = {"input_ids": tokens[:, :-1], "use_cache": False}
    counted = batch["loss_mask"][:, 1:]
    if "segment_ids" in batch:
        segments = batch["segment_ids"]
        counted = counted & (segments[:, 1:] == segments[:, :-1])
        inside = segments[:, None, :-1, None] == segments[:, None, None, :-1]
        arguments["attention_mask"] = inside.tril()
        arguments["position_ids"] = batch["position_ids"][:, :-1]
    with torch.autocast(tokens.device.type, torch.bfloat16, enabled=tokens.is_cuda):
        logits = model(**arguments).logits
    return functional.cross_entropy(logits.float()[counted], tokens[:, 1:][counted])


def save(path: Path, model: Any, optimizer: torch.optim.Optimizer, step: int, feed: dict[str, Any]) -> None:
    """Write weights, moments and the feed's state as one file, whole or not at all."""
    save_checkpoint(path, model, optimizer, {"step": str(step), "feed": json.dumps(feed)})


def restore(path: Path, model: Any, optimizer: torch.optim.Optimizer, feed: TokenFeed) -> int:
    """Go back to a checkpoint; the number of steps it has behind it."""
    metadata = read_metadata(path)
    step = int(metadata["step"])
    restore_checkpoint(path, model, optimizer, step)
    feed.load_state_dict(json.loads(metadata["feed"]))
    return step


class _Clock:
    """How fast a training is, and which share of the time it waits for data."""

    def __init__(self, tokens_per_step: int) -> None:
        self.tokens_per_step = tokens_per_step
        self.began = time.monotonic()
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting."""
        began = time.monotonic()
        yield
        self.waited += time.monotonic() - began

    def rates(self, num_steps: int) -> str:
        """Both in words."""
        seconds = time.monotonic() - self.began
        rate = num_steps * self.tokens_per_step / seconds
        return f"{rate:,.0f} tokens/s, {self.waited / seconds:.2%} of the time spent waiting for data"


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    torch.cuda.set_device(device)
    return device


if __name__ == "__main__":
    main()
