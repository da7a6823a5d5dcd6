"""What the parts of a recipe are made of: amounts, shares, names, and errors that say what is allowed."""

import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fractions import Fraction
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Unit = Literal["documents", "characters", "tokens"]
NAME = r"^[a-z][a-z0-9_-]*$"
SHARE = re.compile(r"(-?(?:\d+/\d+|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,3})?))(%?)")
MAX_NAMES = 16
"""Allowed names that an error lists."""
MAX_FOUND = 100
"""Characters of a wrong value that an error shows."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message: what is allowed, of many names the most similar ones, and the nearest."""
    names = sorted(allowed)
    by_lower_case = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), by_lower_case, n=1)
    guess = f"; did you mean {by_lower_case[close[0]]!r}?" if close else ""
    if len(names) > MAX_NAMES:
        similar = get_close_matches(name.lower(), by_lower_case, n=MAX_NAMES, cutoff=0)
        shown = ", ".join(sorted(by_lower_case[known] for known in similar))
        return f"; allowed: {shown} and {len(names) - len(similar)} more{guess}"
    return f"; allowed: {', '.join(names)}{guess}"


def refuse_twins(names: Sequence[str], message: str) -> None:
    """Refuse a name that stands twice.

    Raises:
        ValueError: With the name, and the message after it.
    """
    if twins := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twins)!r} {message}")


def _parse_amount(value: Any) -> int | Fraction:
    """A share (`1/16`, `0.25`, `10%`) of what survived so far, or an absolute number (a whole number)."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str, Fraction)):
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"expected a number of at least 0; found {value}")
        return value
    found = SHARE.fullmatch(str(value))
    try:
        share = Fraction(found[1]) / (100 if found[2] else 1) if found else None
    except (ValueError, ZeroDivisionError):
        share = None
    if share is None:
        raise ValueError(f"expected a share such as 1/16, 0.25 or 10%, or a whole number; found {value!r}")
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share between 0 and 1; found {value!r}")
    return share


def _parse_bounds(value: Any) -> tuple[float, float]:
    """The lowest and the highest keep rate that raise no alarm."""
    match value:
        case [float() | int() as low, float() | int() as high] if 0 <= low <= high <= 1:
            return float(low), float(high)
    raise ValueError(f"found {value!r}; expected [low, high] with 0 <= low <= high <= 1")


def _parse_scorer(value: Any) -> Any:
    """A scorer's name, alone or with a mapping of its options."""
    match value:
        case str():
            return value
        case dict() if len(value) == 1:
            ((name, options),) = value.items()
            if isinstance(name, str) and isinstance(options, dict | None):
                return {name: options or {}}
    raise ValueError(f"expected a scorer's name, or one name with a mapping of its options; found {value!r}")


Amount = Annotated[int | Fraction, BeforeValidator(_parse_amount)]
Bounds = Annotated[tuple[float, float], BeforeValidator(_parse_bounds)]
ScorerEntry = Annotated[str | dict[str, dict[str, Any]], BeforeValidator(_parse_scorer)]
Share = Annotated[float, Field(ge=0, le=1, strict=True)]
Text = Annotated[str, Field(min_length=1)]
Flag = Annotated[bool, Field(strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]
Rate = Annotated[float, Field(gt=0)]
Seed = Annotated[int, Field(ge=0, strict=True)]


def _as_list(value: Any) -> Any:
    """A section that stands alone, as a list of one."""
    return [value] if isinstance(value, dict) else value


Item = TypeVar("Item")
Many = Annotated[list[Item], BeforeValidator(_as_list)]
"""One section, or a list of them."""


class Section(BaseModel):
    """Base of every part of a recipe: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
