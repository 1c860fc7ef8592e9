"""Captions in one file for a whole folder: Kohya's fine-tune .json and .jsonl, metadata.csv and .jsonl of data sets."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

from .. import limits
from ..errors import MaquetteError
from ..files import read_text
from ..parsing import parse_json, read_json

_FOUND_IN_FOLDERS = re.compile(r"^(metadata\.(csv|jsonl?)|meta_\w+\.jsonl?)$", re.IGNORECASE)
SUFFIXES = frozenset({".json", ".jsonl", ".csv"})
_NAME_KEYS = ("file_name", "image_path", "image", "file", "path", "name")
_TEXT_KEYS = ("caption", "text", "prompt")


Lines = Literal["joined", "first", "kept", "each"]


@dataclass(frozen=True)
class Told:
    """What an entry says: lines that are not blank, white space made single, and tags."""

    lines: tuple[str, ...]
    tags: str

    def text(self, rule: Lines) -> str:
        """rule: the lines as one; the first alone, with the tags only where there is no other, as sd-scripts has it;
        all of them with the tags at the end ("kept") or at each, for lines that are alternatives.
        """
        if rule == "each":
            return "\n".join(_with_tags(line, self.tags) for line in self.lines or [""])
        lines = [*self.lines[:-1], _with_tags(self.lines[-1] if self.lines else "", self.tags)]
        return lines[0] if rule == "first" else ("\n" if rule == "kept" else " ").join(lines)


def _with_tags(line: str, tags: str) -> str:
    return ", ".join(part for part in (line, tags) if part)


class Metadata:
    """Captions by picture. `file` is where they came from; pictures are found by path, name or stem, in this order."""

    def __init__(self, file: Path, captions: Mapping[str, Told]) -> None:
        self.file = file
        self._captions = {_plain(key): text for key, text in captions.items()}
        self._used: dict[str, list[Path]] = {}  # by entry, the photos that asked for it

    def caption(self, photo: Path) -> str | None:
        """The caption of a photo in one line, or None."""
        told = self.told(photo)
        return None if told is None else told.text("joined")

    def told(self, photo: Path) -> Told | None:
        """The entry of a photo, or None."""
        folder = self.file.parent
        near = photo.relative_to(folder) if photo.is_relative_to(folder) else photo
        for path in (photo.absolute(), near, Path(photo.name)):
            for key in (_plain(path.as_posix()), _plain(path.with_suffix("").as_posix())):
                if key in self._captions:
                    self._used.setdefault(key, []).append(photo)
                    return self._captions[key]
        return None

    def unused(self) -> list[str]:
        """Entries that no photo has asked for, as they are written but for the direction of slashes."""
        return sorted(self._captions.keys() - self._used.keys())

    @property
    def used(self) -> bool:
        """Whether any photo has found its caption here."""
        return bool(self._used)

    def shared(self) -> dict[str, list[str]]:
        """The names of the photos of each entry that several have found."""
        found = {
            key: sorted({photo.as_posix(): photo.name for photo in asked}.values()) for key, asked in self._used.items()
        }
        return {key: names for key, names in found.items() if len(names) > 1}


def _plain(key: str) -> str:
    # NFC: file systems and editors write accents in one character or in two
    return unicodedata.normalize("NFC", key).replace("\\", "/").removeprefix("./")


def find_metadata(folder: Path) -> Path | None:
    """The metadata file in a folder, or None. Raises MaquetteError when there are several."""
    found = sorted(path for path in folder.iterdir() if is_metadata(path))
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise MaquetteError(
            f"{folder} has several metadata files ({names}); name the one to use instead of the folder."
        )
    return found[0] if found else None


def is_metadata(file: Path) -> bool:
    """Whether a file is a metadata file by its name, and speaks of pictures."""
    return bool(_FOUND_IN_FOLDERS.match(file.name)) and file.is_file() and not _is_of_an_album(file)


def _is_of_an_album(file: Path) -> bool:
    """Whether a .json is about something else, such as the metadata.json of a photo service's album."""
    if file.suffix.lower() != ".json":
        return False
    try:
        content = read_json(file, limits.METADATA_BYTES, "metadata file")
    except MaquetteError:
        return False  # read_metadata will say what is wrong
    return isinstance(content, dict) and not any(isinstance(value, dict) for value in content.values())


def read_metadata(file: Path) -> Metadata:
    """Read a metadata file of any of the kinds. Raises MaquetteError naming the file, the line and the fault."""
    text = read_text(file, limits.METADATA_BYTES, "metadata file")
    suffix = file.suffix.lower()
    if suffix == ".csv":
        try:
            return Metadata(file, dict(_rows(file, csv.DictReader(StringIO(text, newline="")))))
        except csv.Error as error:
            raise MaquetteError(f"{file} is not a valid CSV file: {error}.") from error
    if suffix == ".jsonl":
        return Metadata(file, dict(_rows(file, _json_lines(file, text))))
    content = parse_json(text, str(file))
    if isinstance(content, list):
        return Metadata(file, dict(_rows(file, content)))
    if isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        return Metadata(file, {key: _caption(value, f"{file}: {key!r}") for key, value in content.items()})
    raise MaquetteError(f'{file} is not metadata of pictures: expected {{"picture": {{"caption": "…"}}, …}}.')


def _json_lines(file: Path, text: str) -> Iterable[Any]:
    for number, line in enumerate(text.split("\n"), 1):  # a caption may hold other line separators of Unicode
        if line.strip():
            yield parse_json(line, f"{file}, line {number},")


def _rows(file: Path, rows: Iterable[Any]) -> Iterable[tuple[str, Told]]:
    """(picture, caption) of each row; rows are counted from 1 in messages."""
    for number, row in enumerate(rows, 1):
        name = next((row[k] for k in _NAME_KEYS if row.get(k)), None) if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise MaquetteError(f"{file}: entry {number} names no picture; expected one of {', '.join(_NAME_KEYS)}.")
        yield name, _caption(row, f"{file}: entry {number}")


def _caption(entry: Mapping[str, Any], where: str) -> Told:
    """Caption and tags."""
    caption = next((entry[key] for key in _TEXT_KEYS if entry.get(key) is not None), "")
    tags = entry.get("tags")
    if not isinstance(caption, str) or not isinstance(tags, str | list | None):
        raise MaquetteError(f"{where} has a caption that is no text; put it between quotation marks.")
    lines = tuple(" ".join(line.split()) for line in re.split(r"\r\n?|\n", caption) if line.strip())
    told = Told(lines, " ".join((", ".join(map(str, tags)) if isinstance(tags, list) else tags or "").split()))
    if len(told.text("joined")) > limits.CAPTION_BYTES:
        raise MaquetteError(f"{where} has more text than any caption ({limits.CAPTION_BYTES:,} characters at most).")
    return told
