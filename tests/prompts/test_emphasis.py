from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.prompts import parse_attention

DOCUMENTED = {
    "normal text": [["normal text", 1.0]],
    "an (important) word": [["an ", 1.0], ["important", 1.1], [" word", 1.0]],
    "(unbalanced": [["unbalanced", 1.1]],
    r"\(literal\]": [["(literal]", 1.0]],
    "(unnecessary)(parens)": [["unnecessaryparens", 1.1]],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ["a ", 1.0],
        ["house", 1.5730000000000004],
        [" ", 1.1],
        ["on", 1.0],
        [" a ", 1.1],
        ["hill", 0.55],
        [", sun, ", 1.1],
        ["sky", 1.4641000000000006],
        [".", 1.1],
    ],
}


@pytest.mark.parametrize("prompt", DOCUMENTED)
def test_documented_examples(prompt: str) -> None:
    assert parse_attention(prompt) == DOCUMENTED[prompt]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", [["", 1.0]]),
        ("a (b:1.2)", [["a ", 1.0], ["b", 1.2]]),
        ("[x:1.2]", [["x:1.2", 1 / 1.1]]),  # a weight counts in round brackets only
        ("[(a]", [["a", 1 / 1.1 * 1.1]]),  # the two kinds of bracket do not see each other
        ("a:1.2) b]", [["a:1.2) b]", 1.0]]),  # unmatched ends are text
        ("(a: +.5 )", [["a", 0.5]]),
        ("(a:-1)", [["a", -1.0]]),
        (r"a\\b\c", [["a\\bc", 1.0]]),
        ("a BREAK b", [["a", 1.0], ["BREAK", -1.0], ["b", 1.0]]),
        ("aBREAK break", [["aBREAK break", 1.0]]),
        ("{a|b} <c>", [["{a|b} <c>", 1.0]]),
    ],
)
def test_rules(prompt: str, expected: list[list[str | float]]) -> None:
    assert parse_attention(prompt) == expected


def test_weight_that_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"1\.2\.3"):
        parse_attention("(a:1.2.3)")


@given(st.text(alphabet="ab ,:()[]\\|.<>", max_size=40))
def test_text_survives(prompt: str) -> None:
    """Brackets, backslashes and colons may go; letters, commas and spaces stay, in their order."""
    pieces = parse_attention(prompt)
    kept = [c for c in prompt if c in "ab,"]
    assert [c for text, _ in pieces for c in str(text) if c in "ab,"] == kept
    assert all(first[1] != second[1] for first, second in itertools.pairwise(pieces))


@given(st.text(alphabet="ab ,.\n", max_size=30), st.integers(1, 4))
def test_brackets_multiply(text: str, depth: int) -> None:
    [[inner, weight]] = parse_attention("(" * depth + text + ")" * depth)
    assert inner == text
    assert weight == pytest.approx(1.1**depth if text else 1.0)
