"""What a job is, in 24 hexadecimal digits: of the same key the results are the same bytes, so it is done once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..data.images import walk
from ..errors import MaquetteError
from ..files import at_home
from . import layout
from . import photos as photo_files

NUMERICS = 1
"""Raised with every change of the program after which the same settings and photos make other bytes."""
# Places, whose contents count instead, and what moves no byte of the result.
_NOT_OF_THE_KEY = {"photos", "base", "vae", "reg", "from_lora", "out", "device", "keep_state", "trackers"}
FILES = ("base", "vae", "reg", "from_lora")


def settings(config: TrainConfig) -> dict[str, Any]:
    """A configuration with its defaults, without places. What is left to base and photos is left out: it follows from
    both and the numerics version.
    """
    kept: dict[str, Any] = config.model_dump(mode="json", exclude_none=True, exclude=_NOT_OF_THE_KEY)
    if kept.get("alpha") == config.rank:  # as where it is left out
        del kept["alpha"]
    return kept


def key_of(config: TrainConfig, then: list[Any], contents: dict[str, Any]) -> str:
    """The key. then: what follows the training. contents: digests of photos, base, VAE …"""
    whole = {"numerics": NUMERICS, "settings": settings(config), "then": then, "contents": contents}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Digests:
    """sha256 of files and folders, each read once until its size or time changes."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int, int], str] = {}

    def of(self, place: str) -> str:
        """The digest of a base, VAE, LoRA file or folder; of a name ("pocket", "hf:…") the name. Raises MaquetteError
        for a path where nothing is.
        """
        if is_name(place):
            return place
        path = Path(place)
        if path.is_dir():
            parts = [(file.relative_to(path).as_posix(), self._file(file)) for file in walk(path)]
            return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        if not path.is_file():
            raise MaquetteError(f"There is no file or folder {place}.")
        return self._file(path)

    def _file(self, path: Path) -> str:
        facts = path.stat()
        mark = (str(path), facts.st_size, facts.st_mtime_ns)
        if mark not in self._known:
            self._known[mark] = layout.file_hash(path)
        return self._known[mark]


def is_name(place: str) -> bool:
    """Whether a base is named rather than a file: the one that maquette brings, or one of the hub."""
    return place == "pocket" or place.startswith("hf:")


def path_from(folder: Path, place: str) -> str:
    """A path that is written as seen from a folder; an address as it is."""
    return place if photo_files.is_remote(place) else str(folder / at_home(place))


def base_from(folder: Path, place: str) -> str:
    """The same of a base, which may be a name."""
    return place if is_name(place) else path_from(folder, place)


def file_mark(place: str) -> str:
    """Names, sizes and times of a base without reading it. Raises MaquetteError for a path where nothing is."""
    if is_name(place) or photo_files.is_remote(place):
        return place
    path = Path(place)
    if not path.exists():
        raise MaquetteError(f"There is no file or folder {place}.")
    files = list(walk(path)) if path.is_dir() else [path]
    return json.dumps([place, *((str(file), file.stat().st_size, file.stat().st_mtime) for file in files)])
