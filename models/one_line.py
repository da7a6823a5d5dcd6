"""Text as fastText takes it, one line a document: one function for training and scoring.

fastText reads one text a line, takes words that start with `__label__` for labels, and the word `</s>` for the end of
the line. So a model has a family, which says how its texts became lines, and is stored with it:

    default   line ends, `__label__` and `</s>` become a space. PreSelect's training script replaces line ends, NeMo
              Curator also `__label__`; left in a text, `</s>` would cut it there
    dclm      the text is stripped and its lines, as Python's `splitlines` cuts them, are joined by a space (DCLM,
              baselines/mappers/enrichers/quality_prediction_enrichers_calc_fasttext.py); then as above, where DCLM
              would take `__label__` and `</s>` for what fastText reserves

datatrove's filter replaces line ends by nothing unless told otherwise, which glues words together.
"""

import json
from pathlib import Path
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

FILE = "normalisation.json"
LABEL_PREFIX = "__label__"
RESERVED = ("\n", LABEL_PREFIX, "</s>")
LINE_END = r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x{85}\x{2028}\x{2029}]"

Family = Literal["default", "dclm"]


def one_line(texts: pa.LargeStringArray, family: Family = "default") -> pa.LargeStringArray:
    """The texts as fastText takes them, in training and after; n texts."""
    if family == "dclm":
        texts = pc.replace_substring_regex(pc.utf8_trim_whitespace(texts), LINE_END, " ")
    for reserved in RESERVED:
        texts = pc.replace_substring(texts, reserved, " ")
    return texts


def save_family(folder: Path, family: Family) -> None:
    """Write a model's family beside it."""
    (folder / FILE).write_text(json.dumps({"family": family}))


def read_family(path: Path) -> Family | None:
    """The family of the model in a folder, None where it is not said: for a bare file never.

    Raises:
        ValueError: If there is no such family.
    """
    if not (path / FILE).is_file():
        return None
    family = json.loads((path / FILE).read_text()).get("family")
    if family not in get_args(Family):
        raise ValueError(
            f"{path / FILE}: found the family {family!r}, expected one of {', '.join(get_args(Family))}"
        )
    return family
