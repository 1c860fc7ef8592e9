"""Sample prompts that tell something about a kind of subject."""

from __future__ import annotations

ENDINGS: dict[str, tuple[str, ...]] = {  # of sample prompts, each of which the photos should not show already
    "object": ("on a beach", "in a snowy forest", "on a wooden table"),
    "person": ("wearing a red hat", "in a snowy forest", "as an oil painting"),
    "animal": ("on a beach", "wearing a red scarf", "as an oil painting"),
    "style": (),
}
POCKET_BACKGROUNDS = ("red", "blue", "green")  # the places that the small base can draw
STYLED = ("a cat", "a house by a lake", "a portrait of a woman")  # what a style is tried on
POCKET_STYLED = ("a cat", "a house", "an umbrella")


def endings(kind: str | None, pocket: bool) -> tuple[str, ...]:
    """Endings of sample prompts for a kind of subject, an object's where none is named. pocket: whether they are for
    the small base.
    """
    return tuple(f"on a {name} background" for name in POCKET_BACKGROUNDS) if pocket else ENDINGS[kind or "object"]


def style_prompts(subject: str, pocket: bool) -> list[str]:
    """Sample prompts of a style: things in it, and one without it, which must stay as it was."""
    things = POCKET_STYLED if pocket else STYLED
    return [*(f"{thing}, {subject}" for thing in things), things[0]]
