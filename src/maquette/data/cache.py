"""Latents on disk between runs, found by content: photo, crop, mirror and encoder (`views.View.key`). Nothing stale is
ever served.

Any number of processes may use one folder at once, and may be killed at any byte: an entry appears whole under its
final name, carries a checksum, and is believed only if that holds. Nothing is written into a folder of photos.
Whoever can write into the folder can also make a checksum, so what an entry holds is looked at besides: its kind,
shape and numbers must be those of a latent of that photo. Links are not followed, and only entries are removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..errors import MaquetteError

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 10_000_000_000
LARGEST_ENTRY = 256_000_000  # bytes; a latent of 4096 x 4096 pixels has 8.4 million
_DIGEST = hashlib.sha256().digest_size
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to no living process


def cache_folder(runs: Path) -> Path:
    """$MAQUETTE_CACHE, or `.cache` in the folder that holds the runs."""
    return files.named_cache() or runs / ".cache"


class LatentCache:
    """Means and standard deviations of latents, one file each, at most `most_bytes` in all (the oldest go first)."""

    def __init__(self, folder: str | Path, most_bytes: int = MOST_BYTES) -> None:
        self.folder = Path(folder) / "latents"
        self.most_bytes = most_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MaquetteError(
                f"The cache {self.folder} cannot be made: {error.strerror or error}; name another by MAQUETTE_CACHE."
            ) from error

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.latent"

    def get(self, key: str, shape: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation as they were put, or None. A damaged entry is removed and counts as missing, as
        one of another shape does.
        """
        path = self.path(key)
        if path.parent.is_symlink() or not path.exists():
            return None
        try:
            data = files.read_bytes(path, LARGEST_ENTRY, "latent")
        except MaquetteError:  # removed by another process this very moment, or no file at all
            return None
        digest, body = data[:_DIGEST], data[_DIGEST:]
        found = _parse(body) if hashlib.sha256(key.encode() + body).digest() == digest else None
        if found is None or (shape is not None and found[0].shape != shape):
            self.remove(key)
            return None
        mean, std = found
        with contextlib.suppress(
            OSError
        ):  # used now: others go first when room is needed; it may just have gone itself
            os.utime(path)
        return mean, std

    def remove(self, key: str) -> None:
        """Forget an entry that cannot be used."""
        with contextlib.suppress(OSError):
            self.path(key).unlink()

    def put(self, key: str, mean: Tensor, std: Tensor) -> None:
        """Keep a latent. A full or read-only disk is an error that names the folder."""
        import torch
        from safetensors.torch import save

        body = save({"mean_std": torch.stack([mean, std]).detach().cpu()})
        path = self.path(key)
        if path.parent.is_symlink():
            raise MaquetteError(
                f"{path.parent} is a link out of the cache; remove it, or name another by MAQUETTE_CACHE."
            )
        try:
            path.parent.mkdir(exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(key.encode() + body).digest() + body)
            os.replace(temporary, path)
        except OSError as error:
            raise MaquetteError(
                f"The cache {self.folder} cannot be written: {error.strerror or error}; name another by MAQUETTE_CACHE."
            ) from error

    def trim(self) -> int:
        """Remove what killed processes left and, above the size bound, the entries longest unused; bytes freed."""
        entries: list[tuple[float, int, Path]] = []
        freed, now = 0, time.time()
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            if path.parent.is_symlink():  # what lies there is not the cache's
                continue
            try:
                status = path.lstat()
            except OSError:
                continue  # another process removed it
            if path.suffix == ".tmp":
                if now - status.st_mtime > _ABANDONED:
                    freed += _remove(path, status.st_size)
            elif path.suffix == ".latent":
                entries.append((status.st_mtime, status.st_size, path))
        excess = sum(size for _, size, _ in entries) - self.most_bytes
        for _, size, path in sorted(entries):
            if excess <= 0:
                break
            freed += _remove(path, size)
            excess -= size
        return freed


def _parse(body: bytes) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation; None unless they are finite numbers of one kind and shape."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        both = load(body).get("mean_std")
    except (SafetensorError, ValueError, KeyError):
        return None
    if both is None or not both.is_floating_point() or both.ndim < 1 or len(both) != 2:
        return None
    return (both[0], both[1]) if bool(both.isfinite().all()) and bool((both[1] >= 0).all()) else None


def _remove(path: Path, size: int) -> int:
    path.unlink(missing_ok=True)
    return size
