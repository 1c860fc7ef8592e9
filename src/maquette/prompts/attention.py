"""Emphasis in A1111's prompt language: round brackets raise attention, square ones lower it, `(text:1.3)` sets it."""

from __future__ import annotations

import re

RAISE = 1.1  # one pair of round brackets
LOWER = 1 / 1.1  # one pair of square brackets
BREAK = "BREAK"  # in upper case, alone: the rest begins a new chunk of 75 tokens
BREAK_WEIGHT = -1.0

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
_BREAK = re.compile(r"\s*\bBREAK\b\s*", re.DOTALL)


def parse_attention(text: str) -> list[list[str | float]]:
    """Split a prompt into [text, weight] pairs: "a (b:1.2)" -> [["a ", 1.0], ["b", 1.2]].

    Brackets nest and multiply; unclosed ones reach to the end, unmatched closing ones are plain text. `BREAK` becomes
    ["BREAK", -1.0]. Raises ValueError for a weight that is no number, such as "(a:1.2.3)".
    """
    pieces: list[list[str | float]] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def multiply(start: int, factor: float) -> None:
        for piece in pieces[start:]:
            piece[1] = float(piece[1]) * factor

    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "literal":
            pieces.append([match["literal"], 1.0])
        elif kind == "open":
            opened[token].append(len(pieces))
        elif kind == "weight" and opened["("]:
            multiply(opened["("].pop(), float(match["weight"]))
        elif token == ")" and opened["("]:
            multiply(opened["("].pop(), RAISE)
        elif token == "]" and opened["["]:
            multiply(opened["["].pop(), LOWER)
        else:
            _add_text(pieces, token)
    for start in opened["("]:
        multiply(start, RAISE)
    for start in opened["["]:
        multiply(start, LOWER)
    return _merged(pieces) or [["", 1.0]]


def _add_text(pieces: list[list[str | float]], token: str) -> None:
    for number, part in enumerate(_BREAK.split(token)):
        if number > 0:
            pieces.append([BREAK, BREAK_WEIGHT])
        pieces.append([part, 1.0])


def _merged(pieces: list[list[str | float]]) -> list[list[str | float]]:
    """Neighbours of the same weight become one."""
    merged: list[list[str | float]] = []
    for text, weight in pieces:
        if merged and merged[-1][1] == weight:
            merged[-1][0] = str(merged[-1][0]) + str(text)
        else:
            merged.append([text, weight])
    return merged
