"""Batch edits of captions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.data.caption_edit import Edits, name_subject, parse_replacements, parse_tags, tags_of
from maquette.errors import MaquetteError


@pytest.mark.parametrize(
    ("edits", "before", "after"),
    [
        (Edits(add=("outdoors",)), "ohwx man, hat", "ohwx man, hat, outdoors"),
        (Edits(add=("Hat",)), "ohwx man, hat", "ohwx man, hat"),
        (Edits(add=("hat",)), "", "hat"),
        (Edits(remove=("blue shirt", "sky")), "ohwx man, Blue  Shirt, tree , sky", "ohwx man, tree"),
        (Edits(remove=("shirt",)), "ohwx man, blue shirt", "ohwx man, blue shirt"),
        (Edits(replace=(("shirt", "blue shirt"),)), "a Shirt and shirts", "a blue shirt and shirts"),
        (Edits(replace=(("man", "ohwx man"),)), "a man, ohwx man, a woman", "a ohwx man, ohwx man, a woman"),
        (Edits(replace=(("very ", ""),)), "a very old man", "a very old man"),
        (Edits(replace=(("very", ""),)), "a very old man", "a old man"),
        (Edits(prefix="ohwx man,"), "in a hat", "ohwx man, in a hat"),
        (Edits(prefix="ohwx man,"), "Ohwx man, in a hat", "Ohwx man, in a hat"),
        (Edits(prefix="ohwx"), "", "ohwx"),
        (Edits(suffix=", film grain"), "a man", "a man, film grain"),
        (Edits(suffix="at night"), "a man", "a man at night"),
        (Edits(suffix="at night"), "a man At Night", "a man At Night"),
    ],
)
def test_edits(edits: Edits, before: str, after: str) -> None:
    assert edits.apply(before) == after


words = st.lists(st.sampled_from(["man", "ohwx", "hat", "blue shirt", "a", "ünï"]), max_size=6).map(", ".join)
word = st.sampled_from(["man", "ohwx man", "hat", "sky", "blue shirt"])


@given(
    words,
    st.one_of(
        word.map(lambda w: Edits(add=(w,))),
        word.map(lambda w: Edits(remove=(w,))),
        word.map(lambda w: Edits(prefix=w)),
        word.map(lambda w: Edits(suffix=w)),
        st.tuples(word, word).map(lambda pair: Edits(replace=(pair,))),
    ),
)
def test_an_edit_done_twice_is_done_once(caption: str, edits: Edits) -> None:
    once = edits.apply(caption)
    assert edits.apply(once) == once


def test_replacements_are_parsed_or_refused() -> None:
    assert parse_replacements(["a b = c=d", "x="]) == (("a b", "c=d"), ("x", ""))
    for wrong in ["ab", "=x"]:
        with pytest.raises(MaquetteError, match="is not of the form old=new"):
            parse_replacements([wrong])


def test_tags_are_parsed_or_refused() -> None:
    assert parse_tags("add", ["red hat", "a,  b ,"]) == ("red hat", "a", "b")
    with pytest.raises(MaquetteError, match="add ' , ' names no tag"):
        parse_tags("add", ["x", " , "])


def test_a_tag_that_is_not_there_changes_nothing() -> None:
    assert Edits(remove=("hat",)).apply("a photo,of x, ") == "a photo,of x,"


def test_no_edit_is_false() -> None:
    assert not Edits() and Edits(prefix="x")


def test_a_description_is_made_to_name_the_subject() -> None:
    assert name_subject("a man in a red hat", "ohwx man") == "ohwx man in a red hat"
    assert name_subject("The Man and a man", "ohwx man") == "ohwx man and a man"
    assert name_subject("a woman in a hat", "ohwx man") == "ohwx man, a woman in a hat"
    assert name_subject("portrait of OHWX man", "ohwx man") == "portrait of OHWX man"
    assert name_subject("", "ohwx man") == "ohwx man"
    assert name_subject("a dog", "") == "a dog"


def test_tags() -> None:
    assert tags_of(" a,  b c ,, d,") == ["a", "b c", "d"]
