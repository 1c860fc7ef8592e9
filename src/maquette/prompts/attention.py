"""Emphasis in A1111's prompt language: round brackets raise attention, square ones lower it, `(text:1.3)` sets it."""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, Literal

from ..errors import MaquetteError
from .limits import require_bounded

RAISE = 1.1  # one pair of round brackets
LOWER = 1 / 1.1  # one pair of square brackets
BREAK = "BREAK"  # in upper case, alone: the rest begins a new chunk of 75 tokens
BREAK_WEIGHT = -1.0

Emphasis = Literal["Original", "No norm", "Ignore", "None"]
"""What the weights do to a prompt's features: A1111's option of that name."""

_TOKEN = re.compile(
    r"""
    \\(?P<literal>[()\[\]\\]?)                  # a backslash makes the next bracket or backslash a plain character
    | (?P<open>[(\[])
    | :\s*(?P<weight>[+-]?[.\d]+)\s*\)          # ":1.3)" ends a round bracket
    | (?P<close>[)\]])
    | (?P<text>[^\\()\[\]:]+ | :)
    """,
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")


class WeightError(MaquetteError, ValueError):
    """A weight in brackets that is no number. written: how it stands there."""

    def __init__(self, prompt: str, written: str) -> None:
        super().__init__(f"The prompt {prompt[:200]!r} has the weight {written}, which is no number.")
        self.written = written


def parse_attention(text: str) -> list[list[str | float]]:
    """Split a prompt into [text, weight] pairs: "a (b:1.2)" -> [["a ", 1.0], ["b", 1.2]].

    Brackets nest and multiply; unclosed ones reach to the end, unmatched closing ones are plain text. `BREAK` becomes
    ["BREAK", -1.0]. Raises WeightError for a weight that is no number, such as "(a:1.2.3)", and MaquetteError for a
    prompt that is too long.
    """
    require_bounded(text)
    import numpy as np  # here, so that asking for help does not wait for it

    with np.errstate(over="ignore", invalid="ignore"):  # nested a thousand times it is infinite, as Python's is
        return _parsed(text, _Pieces(np.ones(len(text) + 1)))  # a piece takes a character, but for one behind a BREAK


def _parsed(text: str, pieces: _Pieces) -> list[list[str | float]]:
    opened: dict[str, list[int]] = {"(": [], "[": []}
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "literal":
            pieces.add(match["literal"])
        elif kind == "open":
            opened[token].append(len(pieces.texts))
        elif kind == "weight" and opened["("]:
            pieces.multiply(opened["("].pop(), _number(match["weight"], text))
        elif token == ")" and opened["("]:
            pieces.multiply(opened["("].pop(), RAISE)
        elif token == "]" and opened["["]:
            pieces.multiply(opened["["].pop(), LOWER)
        else:
            pieces.add_text(token)
    for start in opened["("]:
        pieces.multiply(start, RAISE)
    for start in opened["["]:
        pieces.multiply(start, LOWER)
    return pieces.merged() or [["", 1.0]]


class _Pieces:
    """Texts and their weights. The weights lie in one array, so that a bracket's factor is one operation."""

    def __init__(self, ones: Any) -> None:
        """ones: (n,) float64, an array long enough for every piece."""
        self.texts: list[str] = []
        self._weights = ones

    def add(self, text: str) -> None:
        self.texts.append(text)

    def add_text(self, token: str) -> None:
        """Text, parted at BREAK; the spaces around that go."""
        parts = _BREAK.split(token)
        for number, part in enumerate(parts):
            if number > 0:
                self._weights[len(self.texts)] = BREAK_WEIGHT
                self.texts.append(BREAK)
                part = part.lstrip()
            self.texts.append(part.rstrip() if number + 1 < len(parts) else part)

    def multiply(self, start: int, factor: float) -> None:
        self._weights[start : len(self.texts)] *= factor

    def merged(self) -> list[list[str | float]]:
        """Neighbours of the same weight become one."""
        weights = self._weights[: len(self.texts)].tolist()
        runs = groupby(zip(weights, self.texts, strict=True), key=lambda piece: piece[0])
        return [["".join(text for _, text in run), weight] for weight, run in runs]


def _number(written: str, prompt: str) -> float:
    try:
        return float(written)
    except ValueError as error:
        raise WeightError(prompt, written) from error
