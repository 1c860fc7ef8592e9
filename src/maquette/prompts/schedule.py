"""Prompt editing in A1111's prompt language: `[from:to:when]`, `[to:when]`, `[from::when]`; `[a|b]` alternates.

A1111 parses with an ambiguous grammar and Earley's algorithm. Here one pass over the text does: a bracket counts when
it is closed and everything within it is whole; what stands in no whole bracket is plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from ..errors import MaquetteError
from .limits import MAX_CHARACTERS, require_bounded

MAX_OUTPUT = 200 * MAX_CHARACTERS  # characters of all texts of a schedule together

Counting = Literal["A1111", "exact"]
"""What a schedule counts: the denoiser's calls as A1111 does, or steps."""

T = TypeVar("T")

_PLAIN = re.compile(r"(?:[^\\\[\]():|]|\\.)+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_OPENING = {"]": "[", ")": "("}


@dataclass
class _Edit:
    """`[before:after:when]`. last: the last step of `before`, below 1 when it never holds."""

    before: list[_Item]
    after: list[_Item]
    when: str
    last: int = 0


@dataclass
class _Alternation:
    """`[a|b|c]`."""

    options: list[list[_Item]]


_Item = str | _Edit | _Alternation


@dataclass
class _Open:
    """A bracket that is not closed yet: where it and its separators lie among the items."""

    start: int
    bracket: str
    places: list[int] = field(default_factory=list)
    separators: list[str] = field(default_factory=list)


def parse_schedule(prompt: str, steps: int, hires_steps: int | None = None) -> list[list[int | str]]:
    """The plain prompts a scheduled one stands for, as [last step, text]: "[a:b:0.5]", 10 -> [[5, "a"], [10, "b"]].

    `when` with a point is a share of the steps, else a number of steps. With `hires_steps` the result is for the second
    pass: its shares run from 1.0 to 2.0, its step numbers go on after `steps`. What does not parse is plain text; a `|`
    outside of [a|b] makes all of it plain, as in A1111. Raises MaquetteError for a prompt or a result that is too long.
    """
    require_bounded(prompt)
    total = steps if hires_steps is None else hires_steps
    items = _parse(prompt) if "[" in prompt else None
    if items is None:
        return [[total, prompt]]
    skipped = (0.0, 0) if hires_steps is None else (1.0, steps)
    return [[step, _text(items, step)] for step in _ends(items, total, skipped, len(prompt))]


def held(schedule: Sequence[tuple[int, T]], place: int) -> T:
    """What a schedule of (last place, thing) holds at a place; behind its end the first, as A1111 has it.

    Places are steps, counted from 1. A1111 gives the number of the denoiser's call instead, counted from 0: so every
    switch comes one call late (reported there as issue 7279 and kept, so that old pictures can be made again), and
    samplers of two calls per step have a schedule of twice the steps.
    """
    return next((thing for end, thing in schedule if place <= end), schedule[0][1])


def _parse(prompt: str) -> list[_Item] | None:
    """The prompt's items; None for one that A1111 cannot parse and takes as it stands."""
    items: list[_Item] = []
    stack: list[_Open] = []
    place = 0
    while place < len(prompt):
        if match := _PLAIN.match(prompt, place):
            items.append(match.group())
            place = match.end()
            continue
        mark = prompt[place]
        place += 1
        if mark == "\\":
            return None  # at the end, or before a line break
        if mark in "[(":
            stack.append(_Open(len(items), mark))
        elif mark in ":|":
            if stack:
                stack[-1].places.append(len(items))
                stack[-1].separators.append(mark)
        elif stack and stack[-1].bracket == _OPENING[mark] and (node := _closed(stack[-1], items)) is not None:
            start = stack.pop().start
            if isinstance(node, _Edit | _Alternation):
                items[start:] = [node]
                continue
        else:
            stack.clear()  # what is open now will not be whole, for this part of it is not
        items.append(mark)
    return None if "|" in items else items


def _closed(bracket: _Open, items: Sequence[_Item]) -> _Edit | _Alternation | str | None:
    """What a bracket that is closed now stands for: an edit, an alternation, itself (a text), or none (None)."""
    separators = bracket.separators
    if not separators or (bracket.bracket == "(" and separators == [":"]):
        return ""
    if bracket.bracket == "(":
        return None
    limits = [bracket.start, *bracket.places, len(items)]
    groups = [list(items[limits[i] + 1 : limits[i + 1]]) for i in range(len(limits) - 1)]
    if set(separators) == {"|"}:
        return _Alternation(groups)
    number = _number(groups[-1])
    if number is None or len(separators) > 2 or "|" in separators:
        return None
    return _Edit(groups[0] if len(groups) == 3 else [], groups[-2], number)


def _number(group: Sequence[_Item]) -> str | None:
    """The number that a group is, with spaces around it (Unicode's too)."""
    if len(group) != 1 or not isinstance(group[0], str):
        return None
    text = group[0].strip()
    return text if _NUMBER.fullmatch(text) else None


def _ends(items: Sequence[_Item], steps: int, skipped: tuple[float, int], length: int) -> list[int]:
    """Steps after which the text changes, and the last; fills in every edit's `last`.

    skipped: the share and the steps of the first pass. Raises MaquetteError when the texts would be too long.
    """
    found, alternates = {steps}, False
    for item in _walk(items):
        if isinstance(item, _Edit):
            number = float(item.when)
            step = (number - skipped[0]) * steps if "." in item.when else number - skipped[1]
            item.last = int(max(0.0, min(step, steps)))
            found.add(item.last)
        alternates = alternates or isinstance(item, _Alternation)
    if (steps if alternates else len(found)) * length > MAX_OUTPUT:
        raise MaquetteError(
            f"The prompt of {length:,} characters changes at so many of {steps:,} steps that its texts have more than "
            f"{MAX_OUTPUT:,} characters: make it shorter, or the steps fewer."
        )
    if alternates:
        found.update(range(1, steps + 1))
    return sorted(step for step in found if step >= 1)


def _text(items: Sequence[_Item], step: int) -> str:
    """The text at a step, counted from 1."""
    parts: list[str] = []
    unread: list[Iterator[_Item]] = [iter(items)]
    while unread:
        item = next(unread[-1], None)
        if item is None:
            unread.pop()
        elif isinstance(item, str):
            parts.append(item)
        elif isinstance(item, _Edit):
            unread.append(iter(item.before if step <= item.last else item.after))
        else:
            unread.append(iter(item.options[(step - 1) % len(item.options)]))
    return "".join(parts)


def _walk(items: Sequence[_Item]) -> Iterator[_Item]:
    """Every item, those within others too."""
    unread = [items]
    while unread:
        for item in unread.pop():
            yield item
            if isinstance(item, _Edit):
                unread += [item.before, item.after]
            elif isinstance(item, _Alternation):
                unread += item.options
