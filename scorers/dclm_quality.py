"""The quality score of DataComp-LM (Li et al. 2024): like instructions and good answers, or like the web."""

from dataclasses import dataclass
from typing import ClassVar

from gristmill.models.one_line import Family
from gristmill.scorers.classifier import Classifier


@dataclass(frozen=True, kw_only=True)
class DclmQuality(Classifier):
    """The probability of `__label__hq` by DCLM's classifier, `openhermes_reddit_eli5_vs_rw_v2_bigram_200k_train.bin`.

    DCLM-Baseline keeps documents from 0.018112 up, the best tenth of its pool: `dclm_pass` in SQL. Its script takes one
    minus the probability of the other label where that is the likelier one, which lies within 2e-5 of this.

    Args:
        label: The label of high quality.
        normalisation: How texts become lines.
    """

    name: ClassVar[str] = "dclm_quality"
    version: ClassVar[int] = 1
    column: ClassVar[str] = "dclm_quality"
    source: ClassVar[str] = "DataComp-LM, arXiv 2406.11794, section 4.4"

    label: str = "hq"
    normalisation: Family | None = "dclm"
