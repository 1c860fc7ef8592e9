"""What is made of files, kept as long as they are the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadOnce(Generic[T]):
    """A function of a file that is called again only when the file has changed; of a folder, each time.

    room: for so many files, those that were asked for last.
    """

    def __init__(self, read: Callable[[Path], T], room: int = 8) -> None:
        self.read, self.room = read, room
        self._held: dict[Path, tuple[tuple[int, int], T]] = {}

    def __call__(self, path: Path) -> T:
        status = path.stat()
        state = status.st_mtime_ns, status.st_size
        found = self._held.pop(path, None)
        if found is None or found[0] != state or path.is_dir():
            found = state, self.read(path)
        self._held[path] = found
        while len(self._held) > self.room:
            del self._held[next(iter(self._held))]
        return found[1]

    def forget(self) -> None:
        """Keep nothing."""
        self._held.clear()
