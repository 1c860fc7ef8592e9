"""Prompt editing in A1111's prompt language: `[from:to:when]`, `[to:when]`, `[from::when]`; `[a|b]` alternates."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

# Ambiguous on purpose ("[a:b]" is de-emphasis around a colon, "[a:3]" is editing): Earley's algorithm weighs both.
_GRAMMAR = r"""
!start: (_part | STRAY)*
_part: edit | alternation | brackets | plain | WS
group: _part*
edit: "[" [group ":"] group ":" [WS] SIGNED_NUMBER [WS] "]"
alternation: "[" group ("|" [group])+ "]"
!brackets: "(" group ")" | "(" group ":" group ")" | "[" group "]"
plain: /([^\\\[\]():|]|\\.)+/
STRAY: /[\[\]():|]/
%import common.WS
%import common.SIGNED_NUMBER
"""


@lru_cache(maxsize=1)
def _parser() -> Any:
    from lark import Lark

    return Lark(_GRAMMAR, parser="earley", maybe_placeholders=True)


def parse_schedule(prompt: str, steps: int, hires_steps: int | None = None) -> list[list[int | str]]:
    """The plain prompts a scheduled one stands for, as [last step, text]: "[a:b:0.5]", 10 -> [[5, "a"], [10, "b"]].

    `when` with a point is a share of the steps, else a number of steps. With `hires_steps` the result is for the second
    pass: its shares run from 1.0 to 2.0, its step numbers go on after `steps`. What does not parse is plain text.
    """
    total = steps if hires_steps is None else hires_steps
    if "[" not in prompt:
        return [[total, prompt]]
    from lark.exceptions import LarkError

    try:
        tree = _parser().parse(prompt)
    except LarkError:
        return [[total, prompt]]
    reading = _Reading(total, 0 if hires_steps is None else steps, 0.0 if hires_steps is None else 1.0)
    return [[step, reading.text(tree, step)] for step in sorted(reading.ends(tree) | {total})]


class _Reading:
    """A parsed prompt read at given steps, counted from 1."""

    def __init__(self, steps: int, skipped_steps: int, skipped_share: float) -> None:
        self.steps, self.skipped_steps, self.skipped_share = steps, skipped_steps, skipped_share

    def when(self, number: str) -> int:
        """Last step before the switch; below 1 means that the switch has happened from the start."""
        if "." in number:
            step = (float(number) - self.skipped_share) * self.steps
        else:
            step = float(number) - self.skipped_steps
        return min(int(step), self.steps)

    def ends(self, tree: Any) -> set[int]:
        """Steps after which the text changes."""
        found: set[int] = set()
        for node in tree.iter_subtrees():
            if node.data == "edit":
                found.add(self.when(_number(node)))
            elif node.data == "alternation":
                found.update(range(1, self.steps + 1))
        return {step for step in found if step >= 1}

    def text(self, node: Any, step: int) -> str:
        """The text of a node at a step."""
        if node is None:
            return ""
        if isinstance(node, str):
            return str(node)
        if node.data == "edit":
            before, after = node.children[:2]
            return self.text(before if step <= self.when(_number(node)) else after, step)
        if node.data == "alternation":
            return self.text(node.children[(step - 1) % len(node.children)], step)
        return self._joined(node.children, step)

    def _joined(self, nodes: Iterable[Any], step: int) -> str:
        return "".join(self.text(node, step) for node in nodes)


def _number(edit: Any) -> str:
    return str(next(child for child in edit.children if getattr(child, "type", "") == "SIGNED_NUMBER"))
