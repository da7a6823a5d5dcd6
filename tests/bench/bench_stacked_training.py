"""Small language models trained side by side, beside the same models one after the other; on the GPU if there is one.

    python tests/bench/bench_stacked_training.py [--size 300k] [--models 2 4 8] [--steps 10] [--repeats 3]

Steps of 2,048 tokens in sequences of 128, of a vocabulary of 4,096; on the CPU one core, and its time. Both ways take
turns, and each counts with its fastest training. Beside the ratio: by how much a loss of the last step differs at most.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gristmill.models.language_model import SIZES, Architecture, LanguageModel, make_model
from gristmill.models.stacked_training import train_stacked
from gristmill.models.tokenizer import Tokenizer
from gristmill.models.training import TrainingPlan, train

VOCAB_SIZE, CONTEXT, BATCH_TOKENS, STREAM_TOKENS = 4096, 128, 2048, 100_000
Losses = list[float]


def main() -> None:
    """Print one line a number of models."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=list(SIZES), default="300k")
    parser.add_argument("--models", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    architecture = replace(SIZES[options.size], context=CONTEXT)
    plan = TrainingPlan(batch_tokens=BATCH_TOKENS, learning_rate=3e-3, num_steps=options.steps)
    rng = np.random.default_rng(0)
    streams = [
        rng.zipf(1.3, STREAM_TOKENS).clip(1, VOCAB_SIZE - 1).astype(np.uint32)
        for _ in range(max(options.models))
    ]
    train_together(architecture, streams[:1], plan)  # what only the first training pays
    print("models    alone  together  ratio  largest difference of losses")
    for num_models in options.models:
        best = {train_alone: np.inf, train_together: np.inf}
        found = {}
        for _ in range(options.repeats):
            for way in best:
                started = clock()
                found[way] = way(architecture, streams[:num_models], plan)
                best[way] = min(best[way], clock() - started)
        difference = np.abs(np.subtract(found[train_alone], found[train_together])).max()
        alone, together = best.values()
        print(
            f"{num_models:>6} {alone:>6.2f} s  {together:>6.2f} s  {alone / together:>5.2f}  {difference:.1e}"
        )


def train_alone(
    architecture: Architecture, streams: Sequence[npt.NDArray[np.uint32]], plan: TrainingPlan
) -> Losses:
    """The last loss of each model, trained one after the other."""
    losses = []
    for model, stream in zip(make_models(architecture, len(streams)), streams, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            losses.append(train(model, stream, plan, Path(folder), lambda row, num_steps: None)[-1].loss)
    return losses


def train_together(
    architecture: Architecture, streams: Sequence[npt.NDArray[np.uint32]], plan: TrainingPlan
) -> Losses:
    """The last loss of each model, trained side by side."""
    names = [str(number) for number in range(len(streams))]
    return [log[-1] for log in train_stacked(make_models(architecture, len(streams)), streams, plan, names)]


def make_models(architecture: Architecture, num_models: int) -> list[LanguageModel]:
    """Models of equal weights, as proxies are."""
    unused = Tokenizer.train([], 257)
    return [LanguageModel(make_model(architecture, VOCAB_SIZE, 0, 0), unused) for _ in range(num_models)]


if __name__ == "__main__":
    main()
