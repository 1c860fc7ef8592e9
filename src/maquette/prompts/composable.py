"""`AND` in A1111's prompt language: several prompts, each guiding on its own (arXiv 2206.01714)."""

from __future__ import annotations

import re

_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*:\s*([-+]?(?:\d+\.?|\d*\.\d+))\s*$")


def parse_composable(prompt: str) -> list[tuple[str, float]]:
    """Split at AND, each part with its weight: "a AND b:0.5" -> [("a ", 1.0), (" b", 0.5)]."""
    parts = []
    for text in _AND.split(prompt):
        weight = _WEIGHT.search(text)
        parts.append((text[: weight.start()], float(weight[1])) if weight else (text, 1.0))
    return parts
