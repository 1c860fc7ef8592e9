"""Captions: from the text file beside a photo, else made from the subject."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import limits
from ..config.photos import TEMPLATE
from ..errors import MaquetteError
from ..files import read_bytes

if TYPE_CHECKING:
    from .groups import Group

CAPTION_EXTENSIONS = (".txt", ".caption")  # in this order of preference, in any letter case
_ALREADY_A_SENTENCE = re.compile(
    r"^((an?|the)\s+)?(photo|picture|image|painting|drawing|portrait)\s+of\s", re.IGNORECASE
)


def caption_for_subject(subject: str, template: str = TEMPLATE) -> str:
    """Turn "zkw robot" into "a photo of zkw robot". A subject that is a sentence already ("photo of a man") is kept."""
    subject = " ".join(subject.split())
    return subject if _ALREADY_A_SENTENCE.match(subject) else template.replace("{subject}", subject)


@dataclass(frozen=True)
class CaptionText:
    """What a caption file holds. lines: those that are not blank, white space made single."""

    lines: tuple[str, ...]
    fallback: str | None = None  # the encoding it was taken to be in, where it is not Unicode

    @property
    def joined(self) -> str:
        return " ".join(self.lines)


def read_caption(path: str | Path) -> CaptionText:
    """The text of a caption file: UTF-8, UTF-16 with a byte-order mark, else Windows-1252, as old editors write.

    Raises MaquetteError when it cannot be read, is no text or larger than limits.CAPTION_BYTES.
    """
    path = Path(path)
    name = f"The caption {path.name}"
    data = read_bytes(path, limits.CAPTION_BYTES, "caption", name)
    text, fallback = decode(data, name)
    lines = (" ".join(line.split()) for line in re.split(r"\r\n?|\n", text))
    return CaptionText(tuple(line for line in lines if line), fallback)


def decode(data: bytes, name: str) -> tuple[str, str | None]:
    """Text, and the encoding where it is not Unicode. Raises MaquetteError, beginning with `name`, where it is none."""
    try:
        text, fallback = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"), None
    except UnicodeDecodeError as error:
        try:
            text, fallback = data.decode("cp1252"), "Windows-1252"
        except UnicodeDecodeError:
            raise MaquetteError(
                f"{name} is not UTF-8 text (byte {error.start + 1}); save it again as UTF-8."
            ) from error
    if "\0" in text:
        raise MaquetteError(f"{name} is not text; replace it by a text file.")
    return text, fallback


def class_of(subject: str) -> str:
    """The class inside a subject: all but the rare first word. "ohwx man" -> "man"; a single word is its own class."""
    words = subject.split()
    return " ".join(words[1:] or words)


def caption_for_class(name: str) -> str:
    """Caption of a regularization image: "man" -> "a photo of a man", "old robot" -> "a photo of an old robot"."""
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
    pattern = re.compile(rf"(?<!\w)(?:(?:an?|the)\s+)?{re.escape(subject)}(?!\w)", re.IGNORECASE)
    replaced, count = pattern.subn(lambda _: f"{article} {name}", caption)
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
    """The caption file of a photo: IMG.jpg.txt, IMG.jpg.caption, IMG.txt or IMG.caption in this order, or None."""
    candidates = (names.find(base + end) for base in (photo.name, photo.stem) for end in extensions)
    return next((path for path in candidates if path is not None), None)


@dataclass(frozen=True)
class Caption:
    """What a photo is said to show, and who says so. source, file: as of `dataset.Photo`. text: what the file holds."""

    words: str
    source: str
    file: Path | None = None
    text: CaptionText | None = None
    notes: tuple[str, ...] = ()


def caption_of(photo: Path, names: FolderNames, group: Group) -> Caption:
    """The caption of a photo: the text file beside it, else the metadata, else what the subject makes.

    names: of the files in its folder. Raises MaquetteError for a caption file that cannot be read.
    """
    file = find_caption(photo, names, group.extensions)
    rule = "each" if group.options.wildcards and group.lines != "kept" else group.lines
    told = group.metadata.told(photo) if group.metadata else None
    notes: tuple[str, ...] = ()
    if file:
        text = read_caption(file)
        if text.lines:
            if group.lines == "kept" or group.options.wildcards:
                words = "\n".join(text.lines)
            else:
                words = text.lines[0] if group.lines == "first" else text.joined
            return Caption(words, file.name, file, text)
        notes = (f"its caption file {file.name} is empty",)
    if group.metadata and told and (words := told.text(rule)):
        return Caption(words, group.metadata.file.name, text=CaptionText(told.lines))
    if not group.subject or group.literal:
        words = group.subject
    elif group.role == "class":
        words = caption_for_class(group.subject)
    else:
        words = caption_for_subject(group.subject, group.template)
    return Caption(words, "subject", file, notes=notes)
