"""How a subject is asked for, and what the untrained base is asked in its stead: things and styles."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..config.base import Kind
from .captions import caption_for_class, caption_of_class, class_of

STYLE_WORDS = ("style", "art style", "artstyle")  # classes that say nothing of the style


@dataclass(frozen=True)
class Wording:
    """Prompts of a subject, and what the untrained base is asked instead: of("in the snow") is "a photo of zkw dog in
    the snow", instead("in the snow") "a photo of a dog in the snow". What is asked of a style are things: of("a cat")
    is "a cat, zkw style", instead("a cat") "a cat", or "a cat, watercolor" where the class is a style's name.
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
