"""The golden rule of captions: what is named stays promptable, what is not becomes part of the subject."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .dataset import Photo


def trigger_of(subject: str) -> str:
    """The word that shall call up the subject: the first. "ohwx man" -> "ohwx"."""
    return subject.split()[0] if subject.split() else ""


def words_of(text: str) -> list[str]:
    """Words of a caption, lower case, without punctuation: letters and digits of any script, inner - and ' kept."""
    return re.findall(r"\w+(?:[-'’]\w+)*", text.lower())


@dataclass(frozen=True)
class GoldenRule:
    """What the captions say, and so what stays free: named things stay promptable, unnamed ones become the subject."""

    captions: int
    subject: str
    always: tuple[str, ...]  # words in every caption, besides the subject's own
    sometimes: tuple[tuple[str, int], ...]  # words in some captions, with how many, commonest first

    def sentences(self) -> list[str]:
        subject = f"'{self.subject}'" if self.subject else "the subject"
        lines = []
        if self.always:
            stay = "They stay promptable."
            if not self.subject:  # then the word to learn, which does not stay so, is among them
                stay = (
                    "One may be the word to learn, which takes on the subject; the others stay promptable (--subject)."
                )
            lines.append(f"In all {self.captions} captions: {', '.join(self.always)}. {stay}")
        if self.sometimes:
            shown = ", ".join(f"{word} ({count})" for word, count in self.sometimes[:20])
            more = f" and {len(self.sometimes) - 20} more" if len(self.sometimes) > 20 else ""
            lines.append(f"In some captions: {shown}{more}. These stay free: prompts can have or leave them.")
        lines.append(f"Whatever the photos share and no caption names (glasses, a wall) becomes part of {subject}.")
        return lines


_FUNCTION_WORDS = frozenset(
    [
        "a", "an", "the", "of", "on", "in", "at", "with", "and", "or", "to", "for", "from",
        "by", "is", "are", "was", "be", "its", "it", "this", "that", "as", "into", "over", "under", "near",
    ]
)  # fmt: skip
_MEDIUM_WORDS = frozenset({"photo", "picture", "image"})


def golden_rule(photos: Sequence[Photo], subject: str | None) -> GoldenRule:
    """Count in how many captions each word (or, for comma-separated tags, each tag) occurs."""
    captions = [photo.caption for photo in photos if photo.caption]
    own = set(words_of(subject or "")) | {word for photo in photos for word in words_of(photo.subject)}
    as_tags = bool(captions) and sum(caption.count(",") >= 2 for caption in captions) > len(captions) / 2
    counts: Counter[str] = Counter()
    for caption in captions:
        things = [" ".join(words_of(tag)) for tag in caption.split(",")] if as_tags else words_of(caption)
        counts.update({t for t in things if t and not set(words_of(t)) <= own | _FUNCTION_WORDS | _MEDIUM_WORDS})
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    always = tuple(word for word, count in ranked if count == len(captions))
    return GoldenRule(len(captions), subject or "", always, tuple(r for r in ranked if r[1] < len(captions)))
