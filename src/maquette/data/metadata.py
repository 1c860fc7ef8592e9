"""Captions in one file for a whole folder: Kohya's fine-tune .json and .jsonl, metadata.csv and .jsonl of data sets."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ..errors import MaquetteError

_FOUND_IN_FOLDERS = re.compile(r"^(metadata\.(csv|jsonl?)|meta_\w+\.jsonl?)$", re.IGNORECASE)
SUFFIXES = frozenset({".json", ".jsonl", ".csv"})
_NAME_KEYS = ("file_name", "image_path", "image", "file", "path", "name")
_TEXT_KEYS = ("caption", "text", "prompt")


class Metadata:
    """Captions by picture. `file` is where they came from; pictures are found by path, name or stem, in this order."""

    def __init__(self, file: Path, captions: Mapping[str, str]) -> None:
        self.file = file
        self._captions = {_plain(key): text for key, text in captions.items()}
        self._used: set[str] = set()

    def caption(self, photo: Path) -> str | None:
        """The caption of a photo, or None."""
        folder = self.file.parent
        near = photo.relative_to(folder) if photo.is_relative_to(folder) else photo
        for path in (photo.absolute(), near, Path(photo.name)):
            for key in (_plain(path.as_posix()), _plain(path.with_suffix("").as_posix())):
                if key in self._captions:
                    self._used.add(key)
                    return self._captions[key]
        return None

    def unused(self) -> list[str]:
        """Entries that no photo has asked for, as they are written but for the direction of slashes."""
        return sorted(self._captions.keys() - self._used)


def _plain(key: str) -> str:
    # NFC: file systems and editors write accents in one character or in two
    return unicodedata.normalize("NFC", key).replace("\\", "/").removeprefix("./")


def find_metadata(folder: Path) -> Path | None:
    """The metadata file in a folder, or None. Raises MaquetteError when there are several."""
    named = sorted(p for p in folder.iterdir() if p.is_file() and _FOUND_IN_FOLDERS.match(p.name))
    found = [path for path in named if not _is_of_an_album(path)]
    if len(found) > 1:
        names = ", ".join(p.name for p in found)
        raise MaquetteError(
            f"{folder} has several metadata files ({names}); name the one to use instead of the folder."
        )
    return found[0] if found else None


def _is_of_an_album(file: Path) -> bool:
    """Whether a .json is about something else, such as the metadata.json of a photo service's album."""
    if file.suffix.lower() != ".json":
        return False
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False  # read_metadata will say what is wrong
    return isinstance(content, dict) and not any(isinstance(value, dict) for value in content.values())


def read_metadata(file: Path) -> Metadata:
    """Read a metadata file of any of the kinds. Raises MaquetteError naming the file, the line and the fault."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise MaquetteError(f"{file} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise MaquetteError(f"{file} is not UTF-8 text; save it again as UTF-8.") from error
    suffix = file.suffix.lower()
    if suffix == ".csv":
        try:
            return Metadata(file, dict(_rows(file, csv.DictReader(StringIO(text, newline="")))))
        except csv.Error as error:
            raise MaquetteError(f"{file} is not a valid CSV file: {error}.") from error
    if suffix == ".jsonl":
        return Metadata(file, dict(_rows(file, _json_lines(file, text))))
    content = _json(file, text, "")
    if isinstance(content, list):
        return Metadata(file, dict(_rows(file, content)))
    if isinstance(content, dict) and all(isinstance(value, dict) for value in content.values()):
        return Metadata(file, {key: _caption(value) for key, value in content.items()})
    raise MaquetteError(f'{file} is not metadata of pictures: expected {{"picture": {{"caption": "…"}}, …}}.')


def _json(file: Path, text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise MaquetteError(f"{file}{where} is not valid JSON: {error}.") from error


def _json_lines(file: Path, text: str) -> Iterable[Any]:
    for number, line in enumerate(text.split("\n"), 1):  # a caption may hold other line separators of Unicode
        if line.strip():
            yield _json(file, line, f", line {number},")


def _rows(file: Path, rows: Iterable[Any]) -> Iterable[tuple[str, str]]:
    """(picture, caption) of each row; rows are counted from 1 in messages."""
    for number, row in enumerate(rows, 1):
        name = next((row[k] for k in _NAME_KEYS if row.get(k)), None) if isinstance(row, dict) else None
        if not isinstance(name, str):
            raise MaquetteError(f"{file}: entry {number} names no picture; expected one of {', '.join(_NAME_KEYS)}.")
        yield name, _caption(row)


def _caption(entry: Mapping[str, Any]) -> str:
    """Caption and tags, joined as Kohya's trainer does."""
    caption = next((entry[key] for key in _TEXT_KEYS if isinstance(entry.get(key), str)), "")
    tags = entry.get("tags")
    parts = [caption, ", ".join(map(str, tags)) if isinstance(tags, list) else tags or ""]
    return ", ".join(" ".join(str(part).split()) for part in parts if str(part).strip())
