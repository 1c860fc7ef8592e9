"""Any text is read, in time that grows with its length; a longer one is refused."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from maquette.errors import MaquetteError
from maquette.formats.png import parse_infotext
from maquette.formats.tokenizer import fix_text
from maquette.prompts import (
    MAX_CHARACTERS,
    WeightError,
    malformed_tag,
    parse_attention,
    parse_composable,
    parse_networks,
    parse_schedule,
    strip_comments,
    tokenize,
)

PARSERS: list[Callable[[str], Any]] = [
    parse_attention, parse_composable, parse_networks, malformed_tag, strip_comments, tokenize,
    lambda prompt: parse_schedule(prompt, 20), lambda prompt: parse_schedule(prompt, 20, 15),
]  # fmt: skip

WORDS = [
    "a cat", "red, ", " ", "\n", "\u3000", "\u00a0", "(", ")", "[", "]", ":", "|", "\\", "#", "<", ">", "{", "}", "=",
    "<lora:x:0.8>", "<lora:", "(dog:1.2)", "[a:b:0.5]", "[a|b]", "[::3]", "BREAK", "AND", " AND b:0.5", "1.2", ".5",
    "-", "+", "1e3", "é", "猫", "ﬁ", "’", "＜", "\u0345", "\ud800", "\udc00", "\x00", "\x1b[31m", "&lt;", "&#1234567;",
    "\U0001f916", "\u200d", "１",
]  # fmt: skip


def random_prompt(chance: random.Random) -> str:
    if chance.random() < 0.1:
        return "".join(chr(chance.randrange(0x11000)) for _ in range(chance.randrange(40)))
    return "".join(chance.choice(WORDS) for _ in range(chance.randrange(40)))


def read(prompt: str) -> None:
    """A weight that is no number is the only refusal: it is one in A1111, too."""
    for parse in PARSERS:
        try:
            parse(prompt)
        except WeightError as error:
            assert "no number" in str(error)


def test_random_prompts() -> None:
    chance = random.Random(0)
    for _ in range(2000):
        read(random_prompt(chance))


@pytest.mark.heavy
def test_a_hundred_thousand_random_prompts() -> None:
    """None may take more than 50 ms of processor time in all parsers; a slow one is read again before it counts."""
    chance = random.Random(1)
    fix_text("é")  # imports ftfy
    slowest = 0.0
    for _ in range(100_000):
        prompt = random_prompt(chance)
        taken = []
        while len(taken) < 5 and (not taken or taken[-1] > 0.05):
            began = time.process_time()
            read(prompt)
            taken.append(time.process_time() - began)
        slowest = max(slowest, min(taken))
    assert slowest < 0.05


LONG = {
    "opened": "(" * MAX_CHARACTERS,
    "nested": "(a" * (MAX_CHARACTERS // 2),
    "closed": "(" * (MAX_CHARACTERS // 2) + ")" * (MAX_CHARACTERS // 2),
    "square": "[" * (MAX_CHARACTERS // 2) + "]" * (MAX_CHARACTERS // 2),
    "edits": "[a:b:1]" * (MAX_CHARACTERS // 7),
    "nested edits": "[" * 2499 + "a" + ":1]" * 2499,
    "alternations": "[a|b]" * (MAX_CHARACTERS // 5),
    "spaces": "a" + " " * (MAX_CHARACTERS - 2) + "b",
    "colons": ":" * MAX_CHARACTERS,
    "tags": "<lora:" * (MAX_CHARACTERS // 6),
    "tags that close": "<lora:a>" * (MAX_CHARACTERS // 8),
    "closing": "lora:a" * (MAX_CHARACTERS // 6),
    "and": "AND " * (MAX_CHARACTERS // 4),
    "break": "BREAK " * (MAX_CHARACTERS // 6),
    "comments": "#\n" * (MAX_CHARACTERS // 2),
    "backslashes": "\\" * MAX_CHARACTERS,
    "digits": "(a:" + "9" * (MAX_CHARACTERS - 4) + ")",
    "numbers": "[a:b:" + "9" * (MAX_CHARACTERS - 6) + "]",
}


@pytest.mark.parametrize("name", LONG)
def test_the_worst_of_the_longest(name: str) -> None:
    """Nothing here takes n² steps: that would be minutes, and a recursion would end in an error."""
    read(LONG[name])


@pytest.mark.parametrize("parse", PARSERS)
def test_longer_ones_are_refused(parse: Callable[[str], Any]) -> None:
    with pytest.raises(MaquetteError, match=r"The prompt has 10,001 characters; at most 10,000 are read\."):
        parse("a" * (MAX_CHARACTERS + 1))


def test_a_schedule_of_too_many_texts_is_refused() -> None:
    with pytest.raises(MaquetteError, match=r"changes at so many of 1,000,000,000 steps"):
        parse_schedule("[a|b]", 10**9)
    assert parse_schedule("[a:b:0.5]", 10**9) == [[5 * 10**8, "a"], [10**9, "b"]]


def test_infinite_numbers_in_a_schedule() -> None:
    assert parse_schedule("[a:b:1e999]", 10) == [[10, "a"]]
    assert parse_schedule("[a:b:-1.e999]", 10) == [[10, "b"]]


def test_infotext_of_any_size_parses() -> None:
    for line in ("a " * 50_000, 'ab: "x, ' * 10_000, "-" * 100_000 + ":", ": " * 50_000, '"' * 100_000):
        assert "Prompt" in parse_infotext(line)
