"""Change many captions at once: tags added, removed, replaced; text before and after. A second time changes nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import MaquetteError
from .captions import class_of


def tags_of(caption: str) -> list[str]:
    """The comma-separated parts of a caption, trimmed, empty ones dropped."""
    return [tag for part in caption.split(",") if (tag := " ".join(part.split()))]


@dataclass(frozen=True)
class Edits:
    """What to do to each caption, in this order: replace, remove, add, prefix, suffix."""

    replace: tuple[tuple[str, str], ...] = ()  # whole words: (old, new)
    remove: tuple[str, ...] = ()  # tags
    add: tuple[str, ...] = ()  # tags
    prefix: str = ""
    suffix: str = ""

    def __bool__(self) -> bool:
        return bool(self.replace or self.remove or self.add or self.prefix or self.suffix)

    def apply_to_lines(self, caption: str) -> str:
        """Each line of a caption edited by itself: with caption_wildcards each is a caption of its own."""
        return "\n".join(self.apply(line) for line in caption.split("\n"))

    def apply(self, caption: str) -> str:
        """The edited caption. Letter case does not matter for finding, and is kept otherwise."""
        for old, new in self.replace:
            caption = _replace(caption, old, new)
        if self.remove:
            gone = {tag.lower() for tag in self.remove}
            tags = tags_of(caption)
            kept = [tag for tag in tags if tag.lower() not in gone]
            caption = caption if kept == tags else ", ".join(kept)
        for tag in self.add:
            if tag.lower() not in (t.lower() for t in tags_of(caption)):
                caption = f"{caption}, {tag}" if caption else tag
        if self.prefix and not caption.lower().startswith(self.prefix.lower()):
            caption = f"{self.prefix} {caption}".rstrip()
        if self.suffix and not caption.lower().endswith(self.suffix.lower()):
            joint = "" if self.suffix.startswith((",", ".")) else " "
            caption = f"{caption}{joint}{self.suffix}".lstrip()
        return " ".join(caption.split())


def parse_replacements(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """ "old=new" -> ("old", "new"). Raises MaquetteError for a pair without "=" or without an old part."""
    found = []
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals or not old.strip():
            raise MaquetteError(f"The replacement '{pair}' is not of the form old=new.")
        found.append((" ".join(old.split()), " ".join(new.split())))
    return tuple(found)


def parse_tags(option: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Tags as they stand in captions; a text with commas is several. Raises MaquetteError for a text without any."""
    for text in texts:
        if not tags_of(text):
            raise MaquetteError(f"{option} {text!r} names no tag; write the tag behind it.")
    return tuple(tag for text in texts for tag in tags_of(text))


def _replace(caption: str, old: str, new: str) -> str:
    """Replace whole words, unless `new` stands there already ("man" -> "ohwx man" must not grow with each run)."""
    pattern = rf"(?<!\w){re.escape(old)}(?!\w)"
    if new and re.search(pattern, new, re.IGNORECASE):
        caption = re.sub(rf"(?<!\w){re.escape(new)}(?!\w)", lambda _: old, caption, flags=re.IGNORECASE)
    return re.sub(pattern, lambda _: new, caption, flags=re.IGNORECASE)


def name_subject(caption: str, subject: str) -> str:
    """Make a captioner's text speak of the subject: "a man in a hat" -> "ohwx man in a hat", else "ohwx man, a hat"."""
    if not subject or re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", caption, re.IGNORECASE):
        return caption
    named = re.compile(rf"(?<!\w)((an?|the)\s+)?{re.escape(class_of(subject))}(?!\w)", re.IGNORECASE)
    found, count = named.subn(lambda _: subject, caption, count=1)
    return found if count else f"{subject}, {caption}".rstrip(", ")
