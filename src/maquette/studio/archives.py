"""Zip archives of photos, read with a bound on everything and never unpacked to the names they say."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import MaquetteError
from .photos import MOST_BYTES

ZIP = b"PK\x03\x04"
MOST_ENTRIES = 1000
MOST_RATIO = 100  # of a file's size and its size in the archive
MOST_WHOLE = 2_000_000_000  # bytes of all that is unpacked


@dataclass(frozen=True)
class Entry:
    """A file by the name that somebody gave it."""

    name: str
    data: bytes


def unpacked(path: Path, name: str) -> Iterator[Entry]:
    """The files of an archive. Raises MaquetteError for an archive that does what no honest one does."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _refuse(entries, name)
            left = MOST_WHOLE
            for entry in entries:
                if not entry.is_dir():
                    data = _read(archive, entry, min(left, MOST_BYTES), name)
                    left -= len(data)
                    yield Entry(entry.filename, data)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError, OSError, ValueError) as error:
        raise MaquetteError(f"{name} is no zip archive that can be read; pack it again.") from error


def _refuse(entries: list[zipfile.ZipInfo], name: str) -> None:
    if len(entries) > MOST_ENTRIES:
        raise MaquetteError(f"{name} holds {len(entries)} files; at most {MOST_ENTRIES} are taken.")
    if sum(entry.file_size for entry in entries) > MOST_WHOLE:
        raise MaquetteError(f"{name} unpacks to more than {MOST_WHOLE // 10**9} GB; send it in parts.")
    for entry in entries:
        parts = PurePosixPath(entry.filename.replace("\\", "/"))
        if parts.is_absolute() or ".." in parts.parts or ":" in entry.filename:
            raise MaquetteError(f"{name} holds a file that would lie outside of it; nothing of it was used.")
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise MaquetteError(f"{name} holds a link; nothing of it was used.")
        if entry.filename.lower().endswith(".zip"):
            raise MaquetteError(f"{name} holds another archive; unpack it first.")
        if entry.flag_bits & 1:
            raise MaquetteError(f"{name} is locked by a password; pack it without.")
        if entry.file_size > max(MOST_RATIO * entry.compress_size, 10_000):
            raise MaquetteError(f"{name} unpacks to more than {MOST_RATIO} times its size; it was not used.")


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int, name: str) -> bytes:
    with archive.open(entry) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise MaquetteError(f"{name} holds a file larger than {MOST_BYTES // 10**6} MB; save it smaller.")
    return data
