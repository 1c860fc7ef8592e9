"""Latents on disk between runs, found by content: photo, crop, mirror and encoder. Nothing stale is ever served.

Any number of processes may use one folder at once, and may be killed at any byte: an entry appears whole under its
final name, carries a checksum, and is believed only if that holds. Nothing is written into a folder of photos.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from .dataset import Photo, View

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = 1  # part of every key: raise it when the meaning of an entry changes
MOST_BYTES = 10_000_000_000
_DIGEST = hashlib.sha256().digest_size
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to no living process
Encode = Callable[[Photo, View], "tuple[Tensor, Tensor]"]


def cache_folder(runs: Path) -> Path:
    """$MAQUETTE_CACHE, or `.cache` in the folder that holds the runs."""
    named = os.environ.get("MAQUETTE_CACHE")
    return Path(named).expanduser() if named else runs / ".cache"


def latent_key(photo: Photo, encoder: str, view: View) -> str:
    """Name of a photo's latent. encoder: whatever identifies the encoder's weights and arithmetic."""
    crop = view.crop
    parts = [FORMAT, photo.sha256, crop.bucket, crop.scaled, crop.left, crop.top, view.flip, encoder]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


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

    def get(self, key: str) -> tuple[Tensor, Tensor] | None:
        """Mean and standard deviation as they were put, or None. A damaged entry is removed and counts as missing."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.path(key)
        try:
            data = path.read_bytes()
        except OSError:  # not there, or removed by another process this very moment: both mean "encode it"
            return None
        digest, body = data[:_DIGEST], data[_DIGEST:]
        if hashlib.sha256(key.encode() + body).digest() != digest:
            path.unlink(missing_ok=True)
            return None
        try:
            mean, std = load(body)["mean_std"]
        except SafetensorError:
            path.unlink(missing_ok=True)
            return None
        with contextlib.suppress(
            OSError
        ):  # used now: others go first when room is needed; it may just have gone itself
            os.utime(path)
        return mean, std

    def put(self, key: str, mean: Tensor, std: Tensor) -> None:
        """Keep a latent. A full or read-only disk is an error that names the folder."""
        import torch
        from safetensors.torch import save

        body = save({"mean_std": torch.stack([mean, std]).detach().cpu()})
        path = self.path(key)
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
        for path in self.folder.glob("*/*"):
            try:
                status = path.stat()
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


def _remove(path: Path, size: int) -> int:
    path.unlink(missing_ok=True)
    return size


def latents_of(
    photos: Sequence[Photo], views: Sequence[Sequence[View]], encode: Encode, encoder: str, cache: LatentCache | None
) -> list[list[tuple[Tensor, Tensor]]]:
    """Latents of every photo, one for each of its views: out of the cache, else from `encode` and then kept.

    Each is encoded by itself, so that its numbers do not depend on which others were in the cache.
    """
    found = []
    for photo, shown in zip(photos, views, strict=True):
        row = []
        for view in shown:
            key = latent_key(photo, encoder, view)
            latent = cache.get(key) if cache else None
            if latent is None:
                latent = encode(photo, view)
                if cache:
                    cache.put(key, *latent)
            row.append(latent)
        found.append(row)
    if cache:
        cache.trim()
    return found
