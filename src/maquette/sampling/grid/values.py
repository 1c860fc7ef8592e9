"""The values of an axis as A1111's X/Y/Z plot writes them: `1, 2`, `1-5`, `1-5 (+2)`, `0-1 [5]`, `"red, big", blue`."""

from __future__ import annotations

import csv
import math
import re

from ...errors import MaquetteError

MOST = 1000  # values on an axis
_NUMBER = r"\s*([+-]?\s*\d+(?:\.\d*)?|[+-]?\s*\.\d+)\s*"
_RANGE = re.compile(_NUMBER + r"-" + _NUMBER + r"(?:\(\s*([+-]\s*(?:\d+(?:\.\d*)?|\.\d+))\s*\)|\[\s*(\d+)\s*\])?\s*")
_HAIR = 1e-9  # share of a step by which an end may be missed and still counts


def texts(written: str) -> list[str]:
    """Values with commas between them; one with a comma in it stands in quotation marks. Empty ones stay."""
    rows = csv.reader(written.splitlines() or [""], skipinitialspace=True)
    return [value.strip() for row in rows for value in row]


def numbers(written: str, whole: bool, what: str) -> list[float]:
    """Numbers and ranges of them, with commas between. whole: int values, of which a range goes on by 1 unless it says
    otherwise; else floats. what: the axis, for messages.

    `1-5 (+2)` is 1, 3, 5; `0-1 [5]` five values from 0 to 1, whole ones cut as A1111 cuts them. Raises MaquetteError.
    """
    found: list[float] = []
    for text in texts(written):
        if text:
            found += _range(text, whole, what) if _RANGE.fullmatch(text) else [_number(text, whole, what)]
        if len(found) > MOST:
            raise MaquetteError(f"The axis {what} has more than {MOST} values.")
    return found


def _number(text: str, whole: bool, what: str) -> float:
    try:
        value = int(text) if whole else float(text)
    except ValueError as error:
        kind = "whole number" if whole else "number"
        raise MaquetteError(
            f"The axis {what} has {text!r}, which is no {kind}; write 1, 2, or 1-5 (+2), or 1-10 [5]."
        ) from error
    if not math.isfinite(value):
        raise MaquetteError(f"The axis {what} has {text!r}, which is no number to draw with.")
    return value


def _range(text: str, whole: bool, what: str) -> list[float]:
    match = _RANGE.fullmatch(text)
    assert match is not None
    first, last = (_number(match[i].replace(" ", ""), whole, what) for i in (1, 2))
    if match[4] is not None:
        return _counted(first, last, int(match[4]), whole, what)
    step = _number(match[3].replace(" ", ""), whole, what) if match[3] else math.copysign(1, last - first)
    if step == 0 or (last - first) * step < 0:
        raise MaquetteError(f"The axis {what} has {text!r}, which never gets from {first:g} to {last:g}.")
    count = math.floor((last - first) / step + _HAIR) + 1
    if count > MOST:
        raise MaquetteError(f"The axis {what} has {text!r}, which are more than {MOST} values.")
    values = [first + i * step for i in range(count)]
    return [int(value) for value in values] if whole else [round(value, 9) for value in values]


def _counted(first: float, last: float, count: int, whole: bool, what: str) -> list[float]:
    """So many values at equal distances, both ends among them."""
    if not 1 <= count <= MOST:
        raise MaquetteError(f"The axis {what} asks for {count} values of a range; give 1 to {MOST}.")
    values = [first + i * (last - first) / max(1, count - 1) for i in range(count)]
    return [int(value + _HAIR) for value in values] if whole else [round(value, 9) for value in values]
