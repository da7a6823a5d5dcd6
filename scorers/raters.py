"""Raters by dimension: Meta-rater's, QuRating's and FineWeb-Edu's, toxicity, machine-written text, and any other."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from gristmill.models.rater import Head
from gristmill.scorers.model_ratings import Dimension, ModelRatings

META_RATER = "Meta-rater, arXiv 2504.14194, section 3"
POINTS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
FLAG = (0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Prrc(Dimension):
    """Base of Meta-rater's four dimensions: six classes worth 0 to 5 points."""

    unit = "points"
    source = f"{META_RATER}; raters opendatalab/meta-rater-*-rating"
    worth = POINTS


@dataclass(frozen=True, kw_only=True)
class Professionalism(Prrc):
    """How much expertise reading asks for."""

    name: ClassVar[str] = "professionalism"
    trained_models = MappingProxyType({"model": "professionalism"})
    meaning = "Expertise that reading asks for, from nursery rhymes to papers for experts, expected over the classes"


@dataclass(frozen=True, kw_only=True)
class Readability(Prrc):
    """How clearly the text is written."""

    name: ClassVar[str] = "readability"
    trained_models = MappingProxyType({"model": "readability"})
    meaning = "Clarity and grammar, from many faults to outstandingly clear, expected over the classes"


@dataclass(frozen=True, kw_only=True)
class Reasoning(Prrc):
    """How much the text reasons."""

    name: ClassVar[str] = "reasoning"
    trained_models = MappingProxyType({"model": "reasoning"})
    meaning = (
        "Depth of reasoning, from one causal remark to analyses of many layers, expected over the classes"
    )


@dataclass(frozen=True, kw_only=True)
class Cleanliness(Prrc):
    """How free of noise the text is."""

    name: ClassVar[str] = "cleanliness"
    trained_models = MappingProxyType({"model": "cleanliness"})
    meaning = "Format, content and completeness of the text, from broken to clean, expected over the classes"


@dataclass(frozen=True, kw_only=True)
class EducationalValue(Dimension):
    """How well the text serves teaching at school, as FineWeb-Edu's classifier sees it."""

    name: ClassVar[str] = "educational_value"
    trained_models = MappingProxyType({"model": "educational_value"})
    meaning = (
        "Use for teaching in schools, one regression clipped to 0 to 5; FineWeb-Edu keeps classes from 3 up"
    )
    unit = "points"
    minimum, maximum = 0.0, 5.0
    source = "FineWeb-Edu, arXiv 2406.17557, section 4; HuggingFaceFW/fineweb-edu-classifier"
    worth = POINTS


@dataclass(frozen=True, kw_only=True)
class Advertisement(Dimension):
    """Whether the text is free of advertisement.

    Args:
        label: The label of texts without; the second in WanjuanCC's classifier.
    """

    name: ClassVar[str] = "advertisement"
    trained_models = MappingProxyType({"model": "advertisement"})
    meaning = "Probability that there is no advertisement"
    unit = "probability"
    minimum, maximum = 0.0, 1.0
    source = f"WanjuanCC, arXiv 2402.19282; `ad_en` of {META_RATER}"
    worth = FLAG

    label: str | int | None = 1


@dataclass(frozen=True, kw_only=True)
class Fluency(Dimension):
    """Whether the text is fluent.

    Args:
        label: The label of fluent texts; the second in WanjuanCC's classifier.
    """

    name: ClassVar[str] = "fluency"
    trained_models = MappingProxyType({"model": "fluency"})
    meaning = "Probability that the text is fluent"
    unit = "probability"
    minimum, maximum = 0.0, 1.0
    source = f"WanjuanCC, arXiv 2402.19282; `fluency_en` of {META_RATER}"
    worth = FLAG

    label: str | int | None = 1


@dataclass(frozen=True, kw_only=True)
class Toxicity(Dimension):
    """Whether the text is rude, hateful or otherwise toxic; an axis of its own beside quality."""

    name: ClassVar[str] = "toxicity"
    trained_models = MappingProxyType({"model": "toxicity"})
    meaning = "Probability that the text is toxic"
    unit = "probability"
    minimum, maximum = 0.0, 1.0
    higher_is_better = False
    source = "A Pretrainer's Guide to Training Data, arXiv 2305.13169, section 2"
    deviation = "a classifier in place of the Perspective API, whose logits are averaged over windows"


@dataclass(frozen=True, kw_only=True)
class MachineWritten(Dimension):
    """Whether a language model wrote the text."""

    name: ClassVar[str] = "machine_written"
    trained_models = MappingProxyType({"model": "machine_written"})
    meaning = "Probability that a language model wrote the text"
    unit = "probability"
    minimum, maximum = 0.0, 1.0
    higher_is_better = False
    source = "Solaiman et al. 2019, arXiv 1908.09203, section 4"


@dataclass(frozen=True, kw_only=True)
class AnyRater(Dimension):
    """What any sequence classification or regression says, of its one value or of the label that counts."""

    name: ClassVar[str] = "rater"
    trained_models = MappingProxyType({"model": "rater"})
    meaning = (
        "Expectation over the classes by their numbers, probability of the label, or output of the regression"
    )
    unit = "as the model's labels"
    higher_is_better = None
    source = "AutoModelForSequenceClassification of transformers"
    deviation = "logits averaged over windows by their tokens"


@dataclass(frozen=True, kw_only=True)
class QuRating(ModelRatings):
    """QuRating's four values, each a regression learned from pairs: which of two texts has more of it.

    Args:
        head: What the logits mean.
        window: Tokens read together, without special ones as in the published code.
    """

    name: ClassVar[str] = "qurating"
    meaning = "Log-odds by which the text beats others in pairs"
    unit = "logit"
    source = (
        "QuRating, arXiv 2402.09739, section 4; princeton-nlp/QuRater-1.3B, data_tools/qurater_annotate.py"
    )
    deviation = ""
    special_tokens = False

    head: Head | None = "regression"
    window: int | None = 512

    @property
    def values(self) -> tuple[str, ...]:
        """Columns of the values, in the order of the model's outputs."""
        return (
            "qurating_writing_style",
            "qurating_required_expertise",
            "qurating_facts_and_trivia",
            "qurating_educational_value",
        )
