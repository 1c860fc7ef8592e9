"""The object store, which is the truth of a fleet: a folder, or any address that fsspec knows (s3://, gs://, memory://).

The one operation that all of it rests on is `create`: of many writers of one name exactly one succeeds, and whoever
reads the name sees nothing or the whole object.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ..errors import MaquetteError
from ..files import at_home, link_new, whole_file
from .failures import StoreError


class Entry(NamedTuple):
    """An object below a prefix."""

    name: str
    size: int
    changed: float  # seconds since 1970; 0 where the store does not say


class Store(Protocol):
    """Objects by name ("runs/a/result.json"). Reading what is not there raises FileNotFoundError."""

    address: str
    exclusive: bool  # whether `create` is safe between machines; otherwise the driver alone commits

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def create(self, name: str, data: bytes) -> None:
        """Write what is not there yet. Raises FileExistsError where it is."""

    def upload(self, path: Path, name: str) -> None: ...
    def download(self, name: str, path: Path) -> None: ...
    def exists(self, name: str) -> bool: ...
    def files(self, prefix: str) -> Iterator[Entry]:
        """Every object below a folder, at any depth."""

    def folders(self, prefix: str) -> list[str]:
        """The names directly below a folder."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects and whole folders; what is not there is passed over."""


def open_store(address: str) -> Store:
    """The store at an address. Raises MaquetteError where fsspec is needed and not installed, or knows it not."""
    scheme, separator, rest = address.partition("://")
    if not address.strip():
        raise MaquetteError("root is empty: name a folder, or an address such as s3://bucket/fleet.")
    if not separator:
        return LocalStore(address)
    if scheme in ("file", "local"):
        return LocalStore(rest)
    return FsspecStore(address)


class LocalStore:
    """A folder, without fsspec. A name appears when its object is whole and on the disk."""

    exclusive = True

    def __init__(self, root: str | Path) -> None:
        self.root = at_home(root).absolute()
        self.address = str(self.root)

    def _path(self, name: str) -> Path:
        return self.root / _safe(name)

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        self._put(data, self._path(name))

    def create(self, name: str, data: bytes) -> None:
        self._put(data, self._path(name), link_new)

    def upload(self, path: Path, name: str) -> None:
        with open(path, "rb") as source, whole_file(self._path(name)) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._path(name), path)

    def exists(self, name: str) -> bool:
        return self._path(name).exists()

    def files(self, prefix: str) -> Iterator[Entry]:
        try:
            entries = sorted(os.scandir(self._path(prefix)), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = f"{prefix}/{entry.name}" if prefix else entry.name
            if entry.is_dir():
                yield from self.files(name)
            elif not entry.name.endswith(".part"):
                found = entry.stat()
                yield Entry(name, found.st_size, found.st_mtime)

    def folders(self, prefix: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(prefix)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            path = self._path(name)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)

    def _put(self, data: bytes, target: Path, place: Any = None) -> None:
        with whole_file(target, place) as file:
            file.write(data)


class FsspecStore:
    """Any file system of fsspec. `create` is its exclusive write, which S3 and others do in one conditional request."""

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        try:
            import fsspec
        except ImportError as error:
            raise MaquetteError(
                f"{address} needs fsspec: pip install 'maquette-lora[fleet]' (and for s3:// s3fs, for gs:// gcsfs)."
            ) from error
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.address)
        except (ImportError, ValueError) as error:
            raise MaquetteError(f"The store {address} cannot be opened: {error}.") from error
        self.exclusive = _creates_exclusively(self._fs)

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{_safe(name)}".rstrip("/")

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Errors of files stay; whatever else its library raises is a StoreError."""
        try:
            yield
        except (OSError, MaquetteError):
            raise
        except Exception as error:
            raise StoreError(f"The store {self.address} refused: {type(error).__name__}: {error}.") from error

    def read(self, name: str) -> bytes:
        with self._asked():
            data: bytes = self._fs.cat_file(self._path(name))
        return data

    def write(self, name: str, data: bytes) -> None:
        with self._asked():
            self._make(name)
            self._fs.pipe_file(self._path(name), data)

    def create(self, name: str, data: bytes) -> None:
        with self._asked():
            self._make(name)
            self._fs.pipe_file(self._path(name), data, mode="create")

    def upload(self, path: Path, name: str) -> None:
        with self._asked():
            self._make(name)
            self._fs.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._asked():
            self._fs.get_file(self._path(name), str(path))

    def exists(self, name: str) -> bool:
        with self._asked():
            self._fs.invalidate_cache()
            return bool(self._fs.exists(self._path(name)))

    def files(self, prefix: str) -> Iterator[Entry]:
        try:
            with self._asked():
                self._fs.invalidate_cache()
                found = self._fs.find(self._path(prefix), detail=True)
        except FileNotFoundError:
            return
        begin = len(self._path("").rstrip("/")) + 1
        for path, facts in sorted(found.items()):
            yield Entry(path[begin:], int(facts.get("size") or 0), _changed(facts))

    def folders(self, prefix: str) -> list[str]:
        try:
            with self._asked():
                self._fs.invalidate_cache()
                found = self._fs.ls(self._path(prefix), detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found)

    def remove(self, names: Iterable[str]) -> None:
        for name in names:
            with suppress(FileNotFoundError), self._asked():
                self._fs.rm(self._path(name), recursive=True)

    def _make(self, name: str) -> None:
        parent = self._path(name).rpartition("/")[0]
        if parent:
            self._fs.makedirs(parent, exist_ok=True)


def _creates_exclusively(fs: Any) -> bool:
    """Whether it has an exclusive write of its own: fsspec's general one looks first and writes then."""
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem

    kind = type(fs)
    plain = (AbstractFileSystem, AsyncFileSystem)
    return any(
        getattr(kind, name, None) not in {getattr(base, name, None) for base in plain}
        for name in ("pipe_file", "_pipe_file")
    )


def _changed(facts: dict[str, Any]) -> float:
    for key in ("mtime", "created", "LastModified", "last_modified", "updated"):
        value = facts.get(key)
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, datetime):
            return value.timestamp()
    return 0.0


def _safe(name: str) -> str:
    """Raise MaquetteError for a name that would lead out of the store."""
    if name.startswith(("/", "\\")) or any(part in ("..", ".") for part in name.replace("\\", "/").split("/")):
        raise MaquetteError(f"{name!r} is no name of an object in the store.")
    return name
