from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.prompts import parse_schedule

DOCUMENTED = {  # ten steps
    "test": [[10, "test"]],
    "a [b:3]": [[3, "a "], [10, "a b"]],
    "a [b: 3]": [[3, "a "], [10, "a b"]],
    "a [[[b]]:2]": [[2, "a "], [10, "a [[b]]"]],
    "[(a:2):3]": [[3, ""], [10, "(a:2)"]],
    "a [b : c : 1] d": [[1, "a b  d"], [10, "a  c  d"]],
    "a[b:[c:d:2]:1]e": [[1, "abe"], [2, "ace"], [10, "ade"]],
    "a [unbalanced": [[10, "a [unbalanced"]],
    "a [b:.5] c": [[5, "a  c"], [10, "a b c"]],
    "((a][:b:c [d:3]": [[3, "((a][:b:c "], [10, "((a][:b:c d"]],
    "[a|(b:1.1)]": [[i, ["(b:1.1)", "a"][i % 2]] for i in range(1, 11)],
    "[fe|]male": [[i, ["male", "female"][i % 2]] for i in range(1, 11)],
    "[fe|||]male": [[i, "female" if i % 4 == 1 else "male"] for i in range(1, 11)],
}


@pytest.mark.parametrize("prompt", DOCUMENTED)
def test_documented_examples(prompt: str) -> None:
    assert parse_schedule(prompt, 10) == DOCUMENTED[prompt]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a [b:.5] c", [[10, "a b c"]]),  # switched in the first pass
        ("a [b:1.5] c", [[5, "a  c"], [10, "a b c"]]),
        ("a [b:13] c", [[3, "a  c"], [10, "a b c"]]),
    ],
)
def test_second_pass(prompt: str, expected: list[list[int | str]]) -> None:
    assert parse_schedule(prompt, 10, hires_steps=10) == expected


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("[a:b:0.5]", [[5, "a"], [10, "b"]]),
        ("[a::3]", [[3, "a"], [10, ""]]),
        ("[a:b:0]", [[10, "b"]]),
        ("[a:b:99]", [[10, "a"]]),
        (r"\[a:b:3\]", [[10, r"\[a:b:3\]"]]),
        ("a [b:c]", [[10, "a [b:c]"]]),  # no number: plain brackets
        ("a | b [c:2]", [[10, "a | b [c:2]"]]),  # as in A1111: a bar elsewhere makes all of it plain
    ],
)
def test_rules(prompt: str, expected: list[list[int | str]]) -> None:
    assert parse_schedule(prompt, 10) == expected


@given(st.text(alphabet="ab :()[]\\|.5", max_size=25), st.integers(1, 12))
def test_any_text_gives_a_schedule(prompt: str, steps: int) -> None:
    schedule = parse_schedule(prompt, steps)
    ends = [end for end, _ in schedule]
    assert ends == sorted(set(ends))
    assert ends[-1] == steps
    assert ends[0] >= 1
    assert all(set(str(text)) <= set(prompt) for _, text in schedule)


@given(st.text(alphabet="ab ,()", max_size=25))
def test_without_square_brackets_nothing_changes(prompt: str) -> None:
    assert parse_schedule(prompt, 7) == [[7, prompt]]
