"""sha256 of large model files, remembered: a base of 2 to 7 GB is read for its hash once, not at every run.

A file counts as known while its path, size, inode and times of change (contents and status) are what they were. The
memory is a convenience: where it cannot be read or written, the file is hashed again and nothing is said.
"""

from __future__ import annotations

import hashlib
import mmap
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..files import cache_of_user, open_regular, write_json
from ..parsing import read_object
from .safetensors_header import file_sha256

LEAST = 64_000_000  # bytes; smaller files are hashed as fast as their entry is found
_PORTION = 1 << 22  # bytes that are hashed at a time, while other threads run
_MOST = 500  # files that are remembered, the last ones
_SETTLED = 2.0  # seconds: a younger file could change again within the tick of a file system's clock
_SHA256 = re.compile("[0-9a-f]{64}")


def sha256_of(path: str | Path) -> str:
    """The sha256 of a file, as hex. Raises MaquetteError where it cannot be read."""
    path = Path(path)
    before = _state(path)
    if before is None or before[0] < LEAST:
        return file_sha256(path)
    place = str(path.absolute())
    entry = _read().get(place)
    if isinstance(entry, dict) and entry.get("state") == before and _SHA256.fullmatch(str(entry.get("sha256"))):
        return str(entry["sha256"])
    found = _sha256_of_large(path)
    settled = time.time() - max(before[2:]) / 1e9 > _SETTLED
    if settled and _state(path) == before:
        _write(place, {"state": before, "sha256": found})
    return found


def _sha256_of_large(path: Path) -> str:
    """The same digits as `file_sha256`'s, through the system's own pages: gigabytes are not copied for it, and threads
    beside it are held up a hundred times less often.
    """
    digest = hashlib.sha256()
    try:
        with open_regular(path) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as area:
            for start in range(0, len(area), _PORTION):
                with memoryview(area) as pages, pages[start : start + _PORTION] as portion:
                    digest.update(portion)
    except (OSError, ValueError):  # a file system that cannot show its files as memory
        return file_sha256(path)
    return digest.hexdigest()


def files_sha256(files: list[Path]) -> str:
    """sha256 of a file, or over the sha256 of each of several; of large ones as it is remembered."""
    if len(files) == 1:
        return sha256_of(files[0])
    digest = hashlib.sha256()
    for path in files:
        digest.update(bytes.fromhex(sha256_of(path)))
    return digest.hexdigest()


def _state(path: Path) -> list[int] | None:
    """Size, inode, and when contents and status changed, in ns."""
    try:
        found = path.stat()
    except OSError:
        return None
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _file() -> Path:
    return cache_of_user() / "model_hashes.json"


def _read() -> Mapping[str, Any]:
    try:
        return read_object(_file())
    except (MaquetteError, OSError, RuntimeError):  # the last: a user without a home
        return {}


def _write(place: str, entry: Mapping[str, Any]) -> None:
    known = {key: value for key, value in _read().items() if key != place} | {place: entry}
    with suppress(MaquetteError, OSError, RuntimeError):
        write_json(_file(), dict(list(known.items())[-_MOST:]))
