"""What a kind of subject asks for: its class word, the caption of photos without one, and telling sample prompts."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.photos import TEMPLATE

STYLE_TEMPLATE = "a picture in {subject}"


@dataclass(frozen=True)
class Traits:
    """template: of captions. endings: of sample prompts, each of which the photos should not show already."""

    template: str
    endings: tuple[str, ...]


USUAL = ("on a beach", "in a snowy forest", "on a wooden table")
TRAITS: dict[str, Traits] = {
    "object": Traits(TEMPLATE, USUAL),
    "person": Traits(TEMPLATE, ("wearing a red hat", "in a snowy forest", "as an oil painting")),
    "animal": Traits(TEMPLATE, ("on a beach", "wearing a red scarf", "as an oil painting")),
    "style": Traits(STYLE_TEMPLATE, ()),
}
POCKET_BACKGROUNDS = ("red", "blue", "green")  # the places that the small base can draw
STYLED = ("a cat", "a house by a lake", "a portrait of a woman")  # what a style is tried on


def traits(kind: str | None) -> Traits:
    """Those of an object where no kind is named."""
    return TRAITS[kind or "object"]


def endings(kind: str | None, pocket: bool) -> tuple[str, ...]:
    """Endings of sample prompts for a kind of subject. pocket: whether they are for the small base."""
    return tuple(f"on a {name} background" for name in POCKET_BACKGROUNDS) if pocket else traits(kind).endings


def style_prompts(subject: str) -> list[str]:
    """Sample prompts of a style: things in it, and one without it, which must stay as it was."""
    return [*(f"{thing} in {subject}" for thing in STYLED), STYLED[0]]
