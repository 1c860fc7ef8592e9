"""Folders called `40_ohwx man`: repeats and subject to Kohya's trainer, and what only looks like it."""

from __future__ import annotations

import re

from .captions import same_name

_NUMBERED = re.compile(r"^\s*([+-]?[0-9]+)\s*_(.*)$", re.DOTALL)  # what Python reads as a number, as sd-scripts does
_CAMERA = re.compile(r"^[1-9][0-9]{2}_[A-Z0-9]+$")  # 100_CANON, 101_PANA: memory cards number their folders from 100
_YEARS = range(1900, 2101)


def kohya_name(name: str, subject: str | None = None) -> tuple[int, str] | None:
    """Repeats and subject of a folder's name: "40_ohwx man" -> (40, "ohwx man"); None for a name of another kind.

    Any whole number counts, as in sd-scripts (those below 1 leave the folder out), but for years (2024_holiday) and
    numbers of a camera (100_CANON), which are believed only when the name agrees with the subject that the user named.
    """
    match = _NUMBERED.match(name)
    if match is None:
        return None
    count, words = int(match[1]), " ".join(match[2].split())
    if (count in _YEARS or _CAMERA.match(name)) and not (subject and words and agrees(words, subject)):
        return None
    return count, words


def looks_numbered(name: str) -> bool:
    """Whether the name begins as Kohya's do, be it a year's or a camera's."""
    return _NUMBERED.match(name) is not None


def agrees(words: str, subject: str) -> bool:
    """Whether a folder's words speak of the subject: its rare first word is among them, or there are none."""
    spoken, wanted = (same_name(text).replace("_", " ").split() for text in (words, subject))
    return not spoken or not wanted or wanted[0] in spoken
