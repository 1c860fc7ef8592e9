"""A job's photos: listed cheaply for the plan, brought to the worker, told apart by their contents."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..data.images import is_hidden, is_photo, walk
from ..errors import MaquetteError
from . import layout

Photos = str | Sequence[str]
BESIDE = (".txt", ".caption")  # endings of captions that lie beside a photo of a list


@dataclass(frozen=True)
class Listing:
    """What lies at a job's photos. mark: changes when a name, size or time there changes."""

    mark: str
    photos: int
    files: tuple[str, ...]


def is_remote(place: str) -> bool:
    return "://" in place


def listing(photos: Photos) -> Listing:
    """Names, sizes and times; nothing is read. Raises MaquetteError where there are no photos."""
    if isinstance(photos, str):
        found = _remote_files(photos) if is_remote(photos) else _local_files(photos)
        shown = photos
    else:
        found = [facts for one in photos for facts in _one_file(one)]
        shown = "the list of photos"
    count = sum(is_photo(Path(name)) for name, *_ in found)
    if not count:
        raise MaquetteError(f"There are no photos in {shown}.")
    mark = hashlib.sha256(json.dumps([list(map(str, facts)) for facts in found]).encode()).hexdigest()
    return Listing(mark, count, tuple(name for name, *_ in found))


def _local_files(folder: str) -> list[tuple[str, int, float]]:
    """Path, size and time of each file, in order. One pass over the folder, since there may be a million of them."""
    found: list[tuple[str, int, float]] = []
    try:
        with os.scandir(folder) as entries:
            below = []
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if entry.is_dir():
                    below.append(entry.path)
                else:
                    facts = entry.stat()
                    found.append((entry.path, facts.st_size, facts.st_mtime))
    except FileNotFoundError as error:
        raise MaquetteError(f"There is no folder of photos {folder}.") from error
    except OSError as error:
        raise MaquetteError(f"{folder} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise MaquetteError(f"{folder!r} is no name of a folder: {error}.") from error
    for path in below:
        for file in walk(Path(path)):
            facts = file.stat()
            found.append((str(file), facts.st_size, facts.st_mtime))
    return sorted(found)


def _one_file(place: str) -> list[tuple[str, int, float]]:
    if is_remote(place):
        return _remote_files(place)
    found = []
    for path in (Path(place), *(Path(place).with_suffix(ending) for ending in BESIDE)):
        if path.is_file():
            facts = path.stat()
            found.append((str(path), facts.st_size, facts.st_mtime))
    if not found or found[0][0] != place:
        raise MaquetteError(f"There is no photo {place}.")
    return found


def _remote_files(address: str) -> list[tuple[str, int, float]]:
    from .store import Entry, FsspecStore, LocalStore, open_store

    store = open_store(address)
    assert isinstance(store, FsspecStore | LocalStore)
    try:
        found: list[Entry] = [entry for entry in store.files("") if not is_hidden(entry.name.rpartition("/")[2])]
    except OSError as error:
        raise MaquetteError(f"{address} cannot be listed: {error}.") from error
    return [(f"{address.rstrip('/')}/{entry.name}", entry.size, entry.changed) for entry in found]


def fetch(photos: Photos, scratch: Path) -> Path:
    """A local folder with the photos: their own, or a new one below `scratch` with copies."""
    if isinstance(photos, str) and not is_remote(photos):
        return Path(photos)
    folder = scratch / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(photos, str):
        return _downloaded(photos, folder)
    stems: dict[str, str] = {}
    for number, place in enumerate(photos):
        for path, *_ in _one_file(place):
            stem = stems.setdefault(place, f"{number:04d}")
            _copy(path, folder / f"{stem}{Path(path).suffix.lower()}")
    return folder


def _downloaded(address: str, folder: Path) -> Path:
    from .store import open_store

    store = open_store(address)
    for entry in store.files(""):
        if not is_hidden(entry.name.rpartition("/")[2]):
            store.download(entry.name, folder / entry.name)
    return folder


def _copy(place: str, target: Path) -> None:
    if not is_remote(place):
        shutil.copyfile(place, target)
        return
    from .store import open_store

    parent, _, name = place.rpartition("/")
    open_store(parent).download(name, target)


def contents(folder: Path) -> list[tuple[str, str]]:
    """Name within the folder and sha256 of each file, sorted: what the photos are, wherever they lie."""
    found = []
    for path in walk(folder):
        found.append((path.relative_to(folder).as_posix(), layout.file_hash(path)))
    if not any(is_photo(Path(name)) for name, _ in found):
        raise MaquetteError(f"There are no photos in {folder}.")
    return sorted(found)


def delete(files: Sequence[str]) -> None:
    """Delete what a listing named, and folders that it leaves empty; nothing else."""
    parents: set[Path] = set()
    for place in files:
        if is_remote(place):
            from .store import open_store

            parent, _, name = place.rpartition("/")
            open_store(parent).remove([name])
        else:
            Path(place).unlink(missing_ok=True)
            parents.add(Path(place).parent)
    for folder in sorted(parents, key=lambda path: -len(path.parts)):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
