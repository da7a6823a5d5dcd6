"""The search for weights of quality signals, where the best weights are known.

python tests/bench/bench_weight_search.py [--seeds 3]

128 proxies whose losses are a known function of their weights, with noise of a tenth of the losses' deviation. Three
kinds of function, all least at the best weights: the squared distance, the same with signals that count between 0.1
and 10 times, and one minus the cosine. Prints the cosine of the answer to the best weights by each surrogate, by the
one that is chosen, and by it with a quarter of the proxies in a second round around the first answer; mean and worst
of the seeds.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gristmill.models.weight_search import SURROGATES, draw_around, draw_weights, search_weights

Numbers = npt.NDArray[np.float64]
Surface = Callable[[Numbers], Numbers]

NUM_PROXIES = 128
NUM_FIRST = NUM_PROXIES * 3 // 4
NOISE = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    started = time.perf_counter()
    names = ["uniform", *SURROGATES, "chosen", "two rounds"]
    print(f"{'signals':>7} {'losses':<12}" + "".join(f"{name:>13}" for name in names) + "   chosen")
    for num_signals in (5, 25):
        for kind in surfaces(np.ones(num_signals), np.random.default_rng(0)):
            found = [measure(num_signals, kind, seed) for seed in range(options.seeds)]
            cosines = np.array([[row[name] for name in names] for row, _ in found])
            cells = [
                f"{mean:.3f} {worst:.3f}" for mean, worst in zip(cosines.mean(0), cosines.min(0), strict=True)
            ]
            print(
                f"{num_signals:>7} {kind:<12}"
                + "".join(f"{cell:>13}" for cell in cells)
                + "   "
                + ", ".join(surrogate for _, surrogate in found)
            )
    print(f"{time.perf_counter() - started:.0f} s")


def surfaces(best: Numbers, rng: np.random.Generator) -> dict[str, Surface]:
    """Kinds of losses that are least at the best weights, float64[n, d] -> float64[n]."""
    scales = 10 ** rng.uniform(-1, 1, len(best))
    return {
        "isotropic": lambda weights: ((weights - best) ** 2).sum(axis=1),
        "anisotropic": lambda weights: ((weights - best) ** 2) @ scales,
        "cosine": lambda weights: 1 - cosine(weights, best),
    }


def measure(num_signals: int, kind: str, seed: int) -> tuple[dict[str, float], str]:
    """Cosine to the best weights by every way to find them, and which surrogate was chosen."""
    rng = np.random.default_rng(seed)
    best = rng.dirichlet(np.ones(num_signals))
    loss = surfaces(best, rng)[kind]
    weights = draw_weights(NUM_PROXIES, num_signals, seed + 1)
    deviation = NOISE * loss(weights).std()

    def measured(weights: Numbers) -> Numbers:
        return loss(weights) + deviation * rng.normal(size=len(weights))

    losses = measured(weights)
    answers = {"uniform": np.full(num_signals, 1 / num_signals)}
    answers |= {name: search_weights(weights, losses, surrogate=name).weights for name in SURROGATES}
    chosen = search_weights(weights, losses)
    first = search_weights(weights[:NUM_FIRST], losses[:NUM_FIRST])
    around = draw_around(first.weights, NUM_PROXIES - NUM_FIRST, seed + 2)
    both = np.concatenate([weights[:NUM_FIRST], around])
    second = search_weights(both, np.concatenate([losses[:NUM_FIRST], measured(around)]))
    answers |= {"chosen": chosen.weights, "two rounds": second.weights}
    return {name: float(cosine(answer, best)) for name, answer in answers.items()}, chosen.surrogate


def cosine(weights: Numbers, best: Numbers) -> Numbers:
    """Cosine of each row, or of one vector, to the best weights."""
    return weights @ best / (np.linalg.norm(weights, axis=-1) * np.linalg.norm(best))


if __name__ == "__main__":
    main()
