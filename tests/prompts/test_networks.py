from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from maquette.prompts import Network, malformed_tag, parse_composable, parse_networks


def test_tags_are_taken_out() -> None:
    assert parse_networks("x <lora:f:0.8>") == ("x ", [Network(kind="lora", positional=["f", "0.8"], named={})])


def test_named_arguments_have_exactly_one_equals_sign() -> None:
    text, found = parse_networks("a <lora:g:te=1:unet=0.5:a=b=c>, b")
    assert text == "a , b"
    assert found == [Network("lora", ["g", "a=b=c"], {"te": "1", "unet": "0.5"})]


def test_what_is_no_tag_stays() -> None:
    assert parse_networks("a < b > c <d> <: >") == ("a < b > c <d> <: >", [])


@given(st.text(alphabet="abc ,()", max_size=20), st.lists(st.from_regex(r"[a-z][a-z0-9 _.-]{0,9}", fullmatch=True)))
def test_any_number_of_tags(text: str, names: list[str]) -> None:
    rest, found = parse_networks(text + "".join(f"<lora:{name}:0.5>" for name in names))
    assert rest == text
    assert [network.positional for network in found] == [[name, "0.5"] for name in names]


def test_and_splits_and_weighs() -> None:
    assert parse_composable("a AND b:0.5") == [("a", 1.0), (" b", 0.5)]
    assert parse_composable("a:1 AND (b:1.2) : -.5 AND x") == [("a", 1.0), (" (b:1.2)", -0.5), (" x", 1.0)]
    assert parse_composable("BAND and ANDy") == [("BAND and ANDy", 1.0)]
    assert parse_composable("a, b:x") == [("a, b:x", 1.0)]


def test_what_looks_like_a_tag_and_is_none() -> None:
    assert malformed_tag("a <lora:mine:0.8") == "<lora:mine:0.8"
    assert malformed_tag("a < lora:mine:0.8>, b") == "< lora:mine:0.8>"
    assert malformed_tag("a lyco:mine:1>, b") == "lyco:mine:1>"
    assert malformed_tag("[lora:mine:0.8]") == "[lora:mine:0.8]"
    assert malformed_tag("a lora:mine:0.8, b") == "lora:mine:0.8, b"
    for tag in ("<lora mine:0.8>", "<lora=mine:0.8>", "<lora;mine;0.8>", "〈lora:mine:0.8〉", "‹lora:a:1›", "<lora>"):
        assert malformed_tag(f"a {tag} b") == tag
    for prompt in ("a < b, c > d", "lora: a girl named Lora", "flora:x>", "(explora:1.2)", "a (lora:1.2)", "<3 lora"):
        assert malformed_tag(prompt) is None
