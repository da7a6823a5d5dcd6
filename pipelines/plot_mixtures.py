"""The curves of mixtures as a picture: how both losses change along tokens, for each share of domain text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gristmill.pipelines.figures import as_svg
from gristmill.pipelines.mixture_report import Report, Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(results: Sequence[Result], report: Report) -> bytes:
    """An SVG, the same bytes for the same results; dots are observed, lines are fitted."""

    def draw(figure: "Figure") -> None:
        domain, general = figure.subplots(1, 2, sharex=True)
        for result, curve in zip(results, report.curves, strict=True):
            for axes, changes, law in (
                (domain, result.domain_changes, curve.domain_law),
                (general, result.general_changes, curve.general_law),
            ):
                (dots,) = axes.plot(result.lengths, changes, ".", label=result.ratio)
                axes.plot(result.lengths, [law(x) for x in result.lengths], color=dots.get_color())
        general.axhline(report.epsilon, color="grey", linestyle=":")
        for axes, name in ((domain, f"loss of {report.domain}"), (general, "general loss")):
            axes.set(xscale="log", xlabel="training tokens", ylabel=f"change of the {name}, nats a token")
        general.legend(title="domain share")

    return as_svg(draw, (10, 4.5))
