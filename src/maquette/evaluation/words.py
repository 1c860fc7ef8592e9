"""The words of the panel: how a subject is asked for and what the base is asked instead, attributes that a prompt may
ask for, and other things that must stay what they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..config.base import Kind
from ..data.captions import caption_for_class, caption_of_class, class_of
from ..families.base import FamilySpec

STYLE_WORDS = ("style", "art style", "artstyle")  # classes that say nothing of the style

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


@dataclass(frozen=True)
class Wording:
    """Prompts of a subject, and what the base is asked instead: of("in the snow") is "a photo of zkw dog in the snow",
    instead("in the snow") "a photo of a dog in the snow". What is asked of a style are things: of("a cat") is "a cat,
    zkw style", instead("a cat") "a cat", or "a cat, watercolor" where the class is a style's name.
    """

    subject: str
    class_word: str
    style: bool = False

    @classmethod
    def for_subject(cls, subject: str, kind: Kind | None = None, class_word: str | None = None) -> Wording:
        """class_word: otherwise the subject without its first word. Without a kind "zkw style" is a style."""
        word = class_word or class_of(subject)
        return cls(subject, word, kind == "style" or (kind is None and word.lower() in STYLE_WORDS))

    def of(self, attribute: str = "") -> str:
        if self.style:
            return f"{attribute or 'a picture'}, {self.subject}"
        return f"a photo of {self.subject} {attribute}".rstrip()

    def instead(self, attribute: str = "") -> str:
        if self.style:
            return (attribute or "a picture") + self._of_class
        return f"{caption_for_class(self.class_word)} {attribute}".rstrip()

    def caption_instead(self, caption: str) -> str:
        """A caption as the base understands it, without the rare word."""
        if not self.style:
            return caption_of_class(caption, self.subject) or caption
        words, instead = rf"(?<!\w){re.escape(self.subject)}(?!\w)", self.class_word
        if not self._of_class:
            words, instead = rf"[\s,]*(?:\b(?:in|of|by|with)\s+)?(?:\b(?:an?|the)\s+)?{words}", ""
        return re.sub(words, instead, caption, flags=re.IGNORECASE).strip(" ,") or "a picture"

    @property
    def _of_class(self) -> str:
        return "" if self.class_word.lower() in STYLE_WORDS else f", {self.class_word}"


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
