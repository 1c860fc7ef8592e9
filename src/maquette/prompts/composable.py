"""`AND` in A1111's prompt language: several prompts, each guiding on its own (arXiv 2206.01714)."""

from __future__ import annotations

import re

from .limits import require_bounded

_AND = re.compile(r"\bAND\b")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def parse_composable(prompt: str) -> list[tuple[str, float]]:
    """Split at AND, each part with its weight: "a AND b:0.5" -> [("a", 1.0), (" b", 0.5)].

    Spaces at a part's end are dropped, as A1111 does. Raises MaquetteError for a prompt that is too long.
    """
    require_bounded(prompt)
    return [_weighted(part) for part in _AND.split(prompt)]


def _weighted(part: str) -> tuple[str, float]:
    """A part and the number behind its last colon, when nothing else stands there."""
    text, colon, end = part.rpartition(":")
    number = end.strip()
    if colon and _NUMBER.fullmatch(number):
        return text.rstrip(), float(number)
    return part.rstrip(), 1.0
