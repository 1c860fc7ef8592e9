"""Captions that vary: what may change, what must not, and that the draws can be repeated."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from maquette.data.caption_options import PLAIN, CaptionOptions, vary

DRAWS = 32
tags = st.lists(st.sampled_from(["ohwx man", "hat", "blue shirt", "sky", "ünï"]), unique=True, max_size=5)


def variants(text: str, options: CaptionOptions, seed: str) -> list[str]:
    source = random.Random(seed)
    return [vary(text, options, source) for _ in range(DRAWS)]


def test_a_plain_caption_stays_as_it_is() -> None:
    assert set(variants("ohwx man,hat", PLAIN, "s")) == {"ohwx man,hat"}
    options = CaptionOptions(prefix="best", suffix="end")
    assert set(variants("ohwx man,  hat", options, "s")) == {"best ohwx man, hat end"}


@given(tags, st.integers(0, 6))
def test_shuffling_keeps_every_tag_and_the_first_in_place(words: list[str], keep: int) -> None:
    draws = variants(", ".join(words), CaptionOptions(shuffle=True, keep_tokens=keep), "seed")
    assert len(draws) == DRAWS
    for draw in draws:
        found = [tag for tag in draw.split(", ") if tag]
        assert sorted(found) == sorted(words)
        assert found[:keep] == words[:keep]


def test_shuffling_reaches_every_order_and_is_repeatable() -> None:
    options = CaptionOptions(shuffle=True, keep_tokens=1)
    draws = variants("k, a, b", options, "1")
    assert set(draws) == {"k, a, b", "k, b, a"}
    assert draws == variants("k, a, b", options, "1") != variants("k, a, b", options, "2")


@given(tags, st.floats(0, 1))
def test_tag_dropout_keeps_order_and_kept_tags(words: list[str], rate: float) -> None:
    for draw in variants(", ".join(words), CaptionOptions(tag_dropout=rate, keep_tokens=2), "x"):
        found = [tag for tag in draw.split(", ") if tag]
        assert found[:2] == words[:2]
        assert found == [tag for tag in words if tag in found]
    if rate == 1:
        assert set(variants(", ".join(words), CaptionOptions(tag_dropout=1, keep_tokens=2), "x")) == {
            ", ".join(words[:2])
        }


def test_keep_tokens_separator_fixes_head_and_tail() -> None:
    options = CaptionOptions(shuffle=True, keep_tokens_separator="|||", keep_tokens=3)
    draws = variants("1girl, ohwx ||| a, b ||| best, end", options, "x")
    assert set(draws) == {"1girl, ohwx, a, b, best, end", "1girl, ohwx, b, a, best, end"}


def test_secondary_separator_binds_tags() -> None:
    options = CaptionOptions(shuffle=True, secondary_separator=";;")
    assert set(variants("a;;b, c", options, "x")) == {"a,b, c", "c, a,b"}


def test_wildcards_lines_and_escapes() -> None:
    options = CaptionOptions(wildcards=True)
    draws = Counter(variants("a {red|{dark|light} blue} {{hat}}", options, "x"))
    assert set(draws) == {"a red {hat}", "a dark blue {hat}", "a light blue {hat}"}
    assert 6 <= draws["a red {hat}"] <= 26  # a half of 32
    assert set(variants("one\n\ntwo", options, "x")) == {"one", "two"}
    assert set(variants("a {red|blue} } {x|y", options, "x")) == {"a red } {x|y", "a blue } {x|y"}
    assert set(variants("a | b {|c}", options, "x")) == {"a | b", "a | b c"}
    deep = variants("{x" * 9_000 + "deep" + "}y" * 9_000 + "{x|" * 9_000, options, "x")[0]
    assert deep == "x" * 9_000 + "deep" + "y" * 9_000 + "{x|" * 9_000


def test_own_separator() -> None:
    options = CaptionOptions(shuffle=True, separator=".")
    assert set(variants("a, b. c", options, "x")) == {"a, b, c", "c, a, b"}
