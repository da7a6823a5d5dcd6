"""Any rater by its path: a Hugging Face model of sequence classification, or one trained here."""

from functools import lru_cache
from pathlib import Path

from gristmill.models import rater_head, sequence_classifier
from gristmill.models.hugging_face import CONFIG
from gristmill.models.rater import RATER_FILE, Outputs, Rater, Reading


def is_trained_here(path: str) -> bool:
    """Whether the rater at a path knows by itself what its outputs mean."""
    return (Path(path) / RATER_FILE).is_file()


def describe(path: str, reading: Reading) -> Outputs:
    """What a rater gives each document, from its small files alone.

    Raises:
        ValueError: If it cannot be used: in one line what was found, what was expected and what to do.
    """
    if _is_head(path):
        return rater_head.describe(Path(path))
    return sequence_classifier.describe(path, _known(path, reading))


def digest(path: str) -> str:
    """BLAKE2b of all that a rater's numbers depend on, 32 hexadecimal digits, of one that was described."""
    return rater_head.digest(Path(path)) if _is_head(path) else sequence_classifier.digest(path)


def load_rater(path: str, reading: Reading) -> Rater:
    """Load a rater.

    Raises:
        ValueError: If it cannot be used.
    """
    if _is_head(path):
        return rater_head.RaterHead.load(Path(path))
    return sequence_classifier.SequenceClassifier.load(path, _known(path, reading))


def _is_head(path: str) -> bool:
    """Whether a rater is a linear head, and no fine-tuned encoder."""
    return is_trained_here(path) and not (Path(path) / CONFIG).is_file()


def _known(path: str, reading: Reading) -> Reading:
    """How a model reads documents: one that was trained here as it was trained."""
    return Reading() if is_trained_here(path) else reading


@lru_cache(maxsize=8)
def shared_rater(path: str, digest: str, reading: Reading) -> Rater:
    """A rater loaded once in this process; `digest` tells a folder from what lay there before."""
    return load_rater(path, reading)
