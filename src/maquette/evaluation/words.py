"""The words of the panel: attributes that a prompt may ask for, and other things that must stay what they are."""

from __future__ import annotations

import re

from ..families.base import FamilySpec

POCKET_COLOURS = (
    "orange", "purple", "red", "green", "white", "blue", "black", "yellow", "pink", "gray", "cyan", "brown",
)  # fmt: skip
POCKET_OTHERS = ("cat", "car", "rose", "house", "camera", "star", "umbrella", "penguin", "pizza", "drum")
PLACES = (
    "in the snow", "on a beach", "in a jungle", "in a city street at night", "on a wooden table", "in a kitchen",
)  # fmt: skip
STYLES = ("as an oil painting", "as a pencil drawing")
POCKET_STYLED = (
    "a dog", "an apple", "a crown", "a turtle", "a key", "a balloon", "a sailboat", "a snowman", "a frog",
    "a sunflower", "a backpack", "a banana",
)  # fmt: skip
STYLED = (
    "a cat", "a mountain lake", "a portrait of an old man", "a street in a town", "a bowl of fruit", "a castle",
    "a sailing ship", "a bunch of flowers",
)  # fmt: skip
OTHERS = ("dog", "car", "house", "tree", "woman", "cup of coffee", "bicycle", "chair", "bird", "book")


def attributes_of(spec: FamilySpec, style: bool = False) -> tuple[str, ...]:
    """Ends of a prompt, of which any two exclude each other; for a style things to be drawn in it."""
    if style:
        return POCKET_STYLED if spec.name == "pocket" else STYLED
    if spec.name == "pocket":
        return tuple(f"on {article(colour)} background" for colour in POCKET_COLOURS)
    return PLACES + STYLES


def changes_look(attribute: str) -> bool:
    """Whether the subject itself looks otherwise where the attribute is obeyed, so that no photo shows it: "as …"."""
    return attribute.startswith("as ")


def others_of(spec: FamilySpec, class_word: str) -> tuple[str, ...]:
    """Ordinary things that are not of the class."""
    things = POCKET_OTHERS if spec.name == "pocket" else OTHERS
    known = set(re.findall(r"\w+", class_word.lower()))
    return tuple(thing for thing in things if not known & set(thing.split()))


def article(name: str) -> str:
    """ "a cat", "an umbrella"."""
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
