"""Pictures that were drawn, kept as plain PNG files in the data folder."""

from __future__ import annotations

import datetime
import re
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from ..files import whole_file

if TYPE_CHECKING:
    from .drawings import Picture
    from .engine import DrawingEngine

_NAME = re.compile(r"\d{8}-\d{6}-\d{1,20}(-\d{1,6})?\.png")

_naming = threading.Lock()  # two pictures of one second and seed get two names


class Gallery:
    """One folder, a file for each picture: date, time, seed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of(cls, engine: DrawingEngine) -> Gallery:
        """That of a data folder."""
        return cls(engine.folder / "pictures")

    def keep(self, picture: Picture) -> str:
        """Write a picture whole or not at all -> its name. Raises MaquetteError where the disk is full."""
        stem = f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{picture.seed}"
        try:
            with _naming:
                name = next(name for name in self._names(stem) if not (self.folder / name).exists())
                with whole_file(self.folder / name) as file:
                    file.write(picture.png)
        except OSError as error:
            raise MaquetteError(f"The picture cannot be kept in {self.folder}: {error.strerror or error}.") from error
        return name

    @staticmethod
    def _names(stem: str) -> Iterator[str]:
        yield f"{stem}.png"
        yield from (f"{stem}-{i}.png" for i in count(2))

    def names(self) -> list[str]:
        """The newest first."""
        if not self.folder.is_dir():
            return []
        return sorted((path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name)), reverse=True)

    def path(self, name: str) -> Path | None:
        """The file of a name; None for what is no picture here."""
        path = self.folder / name
        return path if _NAME.fullmatch(name) and path.is_file() and not path.is_symlink() else None

    def remove(self, name: str) -> bool:
        """Delete a picture; whether it was there."""
        path = self.path(name)
        if path is None:
            return False
        path.unlink(missing_ok=True)
        return True
