"""Captions: from the text file beside a photo, else made from the subject."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..errors import MaquetteError

CAPTION_EXTENSIONS = (".txt", ".caption")  # in this order of preference, in any letter case
TEMPLATE = "a photo of {subject}"
_ALREADY_A_SENTENCE = re.compile(
    r"^((an?|the)\s+)?(photo|picture|image|painting|drawing|portrait)\s+of\s", re.IGNORECASE
)


def caption_for_subject(subject: str, template: str = TEMPLATE) -> str:
    """Turn "zkw robot" into "a photo of zkw robot". A subject that is a sentence already ("photo of a man") is kept."""
    subject = " ".join(subject.split())
    return subject if _ALREADY_A_SENTENCE.match(subject) else template.replace("{subject}", subject)


def read_caption(path: str | Path, keep_lines: bool = False) -> str:
    """The text of a caption file on one line; "" when it holds only white space. keep_lines: its lines stay apart.

    Raises MaquetteError when it cannot be read or is not UTF-8 (UTF-16 with a byte-order mark is understood).
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MaquetteError(f"The caption {path.name} cannot be read: {error.strerror or error}.") from error
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise MaquetteError(
            f"The caption {path.name} is not UTF-8 text (byte {error.start + 1}); save it again as UTF-8."
        ) from error
    if "\0" in text:
        raise MaquetteError(f"The caption {path.name} is not text; replace it by a text file.")
    lines = text.splitlines() if keep_lines else [text]
    return "\n".join(line for part in lines if (line := " ".join(part.split())))


def class_of(subject: str) -> str:
    """The class inside a subject: all but the rare first word. "ohwx man" -> "man"; a single word is its own class."""
    words = subject.split()
    return " ".join(words[1:] or words)


def caption_for_class(name: str) -> str:
    """Caption of a regularization picture: "man" -> "a photo of a man", "old robot" -> "a photo of an old robot"."""
    name = " ".join(name.split())
    if _ALREADY_A_SENTENCE.match(name) or re.match(r"(an?|the)\s", name, re.IGNORECASE):
        return caption_for_subject(name)
    article = "an" if name[:1].lower() in "aeiou" else "a"
    return caption_for_subject(f"{article} {name}")


def caption_of_class(caption: str, subject: str) -> str | None:
    """The caption with the subject's class in its place; None where the subject is not named.

    "a photo of zkw robot on a red background", "zkw robot" -> "a photo of a robot on a red background".
    """
    name = class_of(subject)
    article = "an" if name[:1].lower() in "aeiou" else "a"
    pattern = re.compile(rf"\b(?:(?:an?|the)\s+)?{re.escape(subject)}\b", re.IGNORECASE)
    replaced, count = pattern.subn(f"{article} {name}", caption)
    return replaced if count else None


def same_name(name: str) -> str:
    """What two names have in common that a person would call the same: letter case and the spelling of accents go."""
    return unicodedata.normalize("NFC", name).lower()


class FolderNames:
    """The file names of one folder, found in any letter case without asking the file system for each."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._exact = set(names)
        self._lower: dict[str, str] = {}
        for name in sorted(self._exact):
            self._lower.setdefault(same_name(name), name)

    def find(self, name: str) -> Path | None:
        real = name if name in self._exact else self._lower.get(same_name(name))
        return None if real is None else self._folder / real


def find_caption(photo: Path, names: FolderNames, extensions: Sequence[str] = CAPTION_EXTENSIONS) -> Path | None:
    """The caption file of a photo: IMG.txt, IMG.caption, IMG.jpg.txt or IMG.jpg.caption in this order, or None."""
    candidates = (names.find(base + end) for base in (photo.stem, photo.name) for end in extensions)
    return next((path for path in candidates if path is not None), None)
