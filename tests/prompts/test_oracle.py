"""The schedule parser against Earley's algorithm on an ambiguous grammar of the language, which A1111 uses."""

from __future__ import annotations

import random
from typing import Any

import pytest
from lark import Lark
from lark.exceptions import LarkError

from maquette.prompts import parse_schedule

GRAMMAR = r"""
!start: (_part | STRAY)*
_part: edit | alternation | brackets | plain | WS
group: _part*
edit: "[" [group ":"] group ":" [WS] SIGNED_NUMBER [WS] "]"
alternation: "[" group ("|" [group])+ "]"
!brackets: "(" group ")" | "(" group ":" group ")" | "[" group "]"
plain: /([^\\\[\]():|]|\\.)+/
STRAY: /[\[\]():]/
WS: /\s+/
%import common.SIGNED_NUMBER
"""
PIECES = [*"a[[]]()::|5\\ \u3000\n", "b ", ".5", "[a:b:5]", "[x|y]"]
STEPS = 4


@pytest.fixture(scope="module")
def parser() -> Lark:
    return Lark(GRAMMAR, parser="earley", maybe_placeholders=True)


def number(edit: Any) -> str:
    return str(next(child for child in edit.children if getattr(child, "type", "") == "SIGNED_NUMBER"))


def when(edit: Any) -> int:
    written = number(edit)
    return int(min(float(written) * STEPS if "." in written else float(written), STEPS))


def text(node: Any, step: int) -> str:
    if node is None or isinstance(node, str):
        return str(node or "")
    if node.data == "edit":
        return text(node.children[0 if step <= when(node) else 1], step)
    if node.data == "alternation":
        return text(node.children[(step - 1) % len(node.children)], step)
    return "".join(text(child, step) for child in node.children)


def expected(parser: Lark, prompt: str) -> list[list[int | str]]:
    try:
        tree = parser.parse(prompt)
    except LarkError:
        return [[STEPS, prompt]]
    ends = {STEPS}
    for node in tree.iter_subtrees():
        ends |= {when(node)} if node.data == "edit" else set()
        ends |= set(range(1, STEPS + 1)) if node.data == "alternation" else set()
    return [[step, text(tree, step)] for step in sorted(ends) if step >= 1]


def test_random_prompts(parser: Lark) -> None:
    chance = random.Random(5)
    for _ in range(400):
        prompt = "".join(chance.choice(PIECES) for _ in range(chance.randrange(14)))
        assert parse_schedule(prompt, STEPS) == expected(parser, prompt), prompt
