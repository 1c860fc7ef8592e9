"""PEFT's settings of an adapter, as its adapter_config.json or diffusers' `lora_adapter_metadata` tell them: numbers
that are checked, and `alpha_pattern`, matched in time that grows with nothing but the lengths.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from .. import limits
from ..errors import MaquetteError
from ..parsing import parse_json

Settings = Mapping[str, Any]

METADATA = "lora_adapter_metadata"  # diffusers' entry of a file, in place of PEFT's adapter_config.json
_LONGEST_WILD, _MOST_REPEATS = 100, 3  # patterns that are more than names: length, `*` and `+`
_TOKEN = re.compile(r"(\\d|\[0-9\]|\\\.|\.|[\w-])([*+]?)")


def of_metadata(metadata: Mapping[str, str], source: str) -> dict[str, Settings]:
    """What diffusers wrote about each network ("unet", "text_encoder" …), {} for nothing. Raises MaquetteError where it
    is unreadable, for then the strength would be lost.
    """
    text = metadata.get(METADATA)
    if text is None:
        return {}
    by_path = parse_json(text, f"{source}: its {METADATA}")
    if not isinstance(by_path, dict):
        raise MaquetteError(f"{source}: its {METADATA} holds no JSON object.")
    found: dict[str, dict[str, Any]] = {}
    for key, value in by_path.items():
        part, _, setting = key.partition(".")
        found.setdefault(part, {})[setting] = value
    return dict(found)


class Strengths:
    """The alphas that PEFT's settings give to layers. Raises ValueError for what is no number and no pattern."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        alpha = settings.get("lora_alpha", settings.get("alpha"))
        self._usual = None if alpha is None else _number("lora_alpha", alpha)
        self._root = settings.get("use_rslora") is True
        patterns = settings.get("alpha_pattern") or {}
        if not isinstance(patterns, dict) or len(patterns) > limits.ALPHA_PATTERNS:
            raise ValueError(f"alpha_pattern is no table of at most {limits.ALPHA_PATTERNS} layers")
        self._named: dict[str, tuple[int, float]] = {}  # the first pattern that fits counts, as in PEFT
        self._wild: list[tuple[list[_Token], tuple[int, float]]] = []
        for index, (pattern, value) in enumerate(patterns.items()):
            self._take(str(pattern), (index, _number(f"alpha_pattern of {str(pattern)[:80]!r}", value)))

    def _take(self, pattern: str, value: tuple[int, float]) -> None:
        for one in _alternatives(pattern.removeprefix("^").removesuffix("$")):
            name = one.replace(r"\.", ".")
            if re.fullmatch(r"[\w.-]+", name):
                self._named.setdefault(name, value)
            else:
                self._wild.append((_tokens(one), value))
        if len(self._wild) > limits.ALPHA_WILDCARDS:
            raise ValueError(f"alpha_pattern has more than {limits.ALPHA_WILDCARDS} patterns that are no names")

    def alpha(self, path: str, rank: int) -> float | None:
        """Alpha of a layer by its path in the file, such that alpha / rank is PEFT's scaling; None: nothing is told.

        A pattern stands for the end of a path, behind a dot or from its beginning, as in PEFT.
        """
        alpha = self._of(path)
        return None if alpha is None else alpha * (math.sqrt(rank) if self._root else 1.0)

    def scale_without_rank(self, path: str) -> float:
        """The scaling of a layer whose factors show no rank (LoKr of two whole matrices): alpha / r."""
        alpha = self._of(path)
        if alpha is None:
            return 1.0
        ranks = Strengths({"alpha": self._settings.get("r"), "alpha_pattern": self._settings.get("rank_pattern")})
        return alpha / _number("r", ranks._of(path), positive=True)

    def _of(self, path: str) -> float | None:
        ends = [path, *(path[match.end() :] for match in islice(re.finditer(r"\.", path), 64))]
        found = [self._named[end] for end in ends if end in self._named]
        found += [value for tokens, value in self._wild if _matches(tokens, path)]
        return min(found)[1] if found else self._usual


def _number(what: str, value: Any, positive: bool = False) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{what} is no number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or (positive and number <= 0):
        raise ValueError(f"{what} is {number:g}")
    return number


_Token = tuple[str, str]  # a character, "." for any or "\d" for a digit; "", "*" or "+"


def _alternatives(pattern: str) -> list[str]:
    """ "a|b", or "x.(a|b)" with one group that is not repeated, as separate patterns."""
    match = re.fullmatch(r"([^()|]*)\((?:\?:)?([^()]*)\)([^()|*+?{]?[^()|]*)", pattern)
    if match:
        return [match[1] + middle + match[3] for middle in match[2].split("|")]
    return pattern.split("|")


def _tokens(pattern: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(pattern):
        match = _TOKEN.match(pattern, at)
        if match is None:
            raise ValueError(f"alpha_pattern {pattern[:60]!r} is no layer's name and no simple pattern of one")
        symbol = r"\d" if match[1] in (r"\d", "[0-9]") else match[1] if match[1] == "." else "=" + match[1][-1]
        found.append((symbol, match[2]))
        at = match.end()
    if len(pattern) > _LONGEST_WILD or sum(bool(repeat) for _, repeat in found) > _MOST_REPEATS:
        raise ValueError(f"alpha_pattern {pattern[:60]!r} is too long or repeats too much to be a layer's name")
    return found


def _matches(tokens: list[_Token], path: str) -> bool:
    """Whether the path's end fits, from its beginning or a dot; all ways are followed at once, so the time is at most
    the product of the lengths.
    """
    places = _skipped(tokens, {0})
    for index, character in enumerate(path):
        if index and path[index - 1] == ".":
            places |= _skipped(tokens, {0})
        reached = set()
        for place in places:
            if place < len(tokens) and _fits(tokens[place][0], character):
                reached |= {place, place + 1} if tokens[place][1] else {place + 1}
        places = _skipped(tokens, reached)
    return len(tokens) in places


def _fits(symbol: str, character: str) -> bool:
    return symbol == "." or (character in "0123456789" if symbol == r"\d" else symbol[1] == character)


def _skipped(tokens: list[_Token], places: set[int]) -> set[int]:
    """The places, and those that are reached by leaving out what may be absent."""
    found = set(places)
    for place in sorted(places):
        while place < len(tokens) and tokens[place][1] == "*":
            place += 1
            found.add(place)
    return found
