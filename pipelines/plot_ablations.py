"""The curves of ablations as a picture: bits per byte against tokens, with the range over seeds."""

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from gristmill.pipelines.ablation_report import Result
from gristmill.pipelines.ablation_streams import RANDOM
from gristmill.pipelines.figures import as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(results: Sequence[Result]) -> bytes:
    """An SVG, the same bytes for the same results."""

    def draw(figure: "Figure") -> None:
        axes = figure.add_subplot(xscale="log", xlabel="training tokens", ylabel="bits per byte, held out")
        for selection in dict.fromkeys(result.selection for result in results):
            lengths = sorted({result.num_tokens for result in results if result.selection == selection})
            losses = [
                [
                    found.bits_per_byte
                    for found in results
                    if (found.selection, found.num_tokens) == (selection, length)
                ]
                for length in lengths
            ]
            means = [fmean(group) for group in losses]
            (line,) = axes.plot(lengths, means, marker="o", label=selection)
            below = [mean - min(group) for mean, group in zip(means, losses, strict=True)]
            above = [max(group) - mean for mean, group in zip(means, losses, strict=True)]
            axes.errorbar(lengths, means, yerr=[below, above], fmt="none", color=line.get_color(), capsize=3)
            if selection != RANDOM:
                axes.axhline(means[0], color=line.get_color(), linestyle=":", linewidth=1)
        axes.legend()

    return as_svg(draw, (7, 4.5))
