"""Bases that stay in memory from one use to the next, for processes that work through many jobs on one base.

Whoever opens a base gets modules of his own around the kept numbers (`BaseModel.shared`): whatever he exchanges, wraps
or lays out is gone with his copy, and the kept base is as it was read, bit for bit. Nothing in maquette writes into a
weight; `check` would notice.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .base import BaseModel
from .hub import is_hub_id
from .loading import kept_by, open_anew

Identity = tuple[Any, ...]


class KeptBases:
    """The newest `most` bases that were asked for, in each type and on each device in which they were.

    A base is read anew when its files are others than before (by size and time of the last change); "hf:owner/name" is
    looked up once.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._kept: dict[Identity, dict[Identity, tuple[BaseModel, int]]] = {}  # source -> variant; the newest last
        self._lock = threading.RLock()
        self.opened = 0  # how often a base was read

    def open(
        self,
        path: str | Path,
        dtype: torch.dtype,
        device: torch.device,
        vae: str | Path | None = None,
        prediction_type: str | None = None,
        unet_dtype: torch.dtype | None = None,
    ) -> BaseModel:
        """As `families.load` does, out of memory where it is known."""
        with self._lock:
            return self._found(path, dtype, device, vae, prediction_type, unet_dtype).shared()

    def _found(
        self,
        path: str | Path,
        dtype: torch.dtype,
        device: torch.device,
        vae: str | Path | None,
        prediction_type: str | None,
        unet_dtype: torch.dtype | None,
    ) -> BaseModel:
        source = (_files(path), None if vae is None else _files(vae))
        variant = (dtype, unet_dtype or dtype, str(device), None if prediction_type == "auto" else prediction_type)
        variants = self._kept.pop(source, {})
        if variant not in variants:
            while len(self._kept) >= self._most:  # before another is read: both may not fit
                del self._kept[next(iter(self._kept))]
            base = open_anew(path, dtype, device, vae, prediction_type, unet_dtype)
            self.opened += 1
            variants[variant] = base, _changes(base)
        self._kept[source] = variants
        return variants[variant][0]

    @contextmanager
    def in_use(self, base: str | Path) -> Iterator[None]:
        """Within the block this base comes from here when this thread opens it; others are read, and not kept."""

        def opened(path: str | Path, *how: Any) -> BaseModel:
            same = Path(path).absolute() == Path(base).absolute()
            return self.open(base, *how) if same else open_anew(path, *how)

        token = kept_by.set(opened)
        try:
            yield
        finally:
            kept_by.reset(token)

    def check(self) -> bool:
        """Let go of bases into whose tensors somebody wrote, against the rule. Returns whether there were none."""
        with self._lock:
            sound = {
                source: {key: (base, count) for key, (base, count) in variants.items() if _changes(base) == count}
                for source, variants in self._kept.items()
            }
            before, self._kept = self._kept, {source: variants for source, variants in sound.items() if variants}
        return sum(map(len, before.values())) == sum(map(len, sound.values()))

    def clear(self) -> None:
        """Let go of all."""
        with self._lock:
            self._kept.clear()


def _changes(base: BaseModel) -> int:
    """How often anybody wrote into a base's tensors: PyTorch counts that for all that share their numbers."""
    return sum(t._version for network in base.networks for t in (*network.parameters(), *network.buffers()))


def _files(path: str | Path) -> Identity:
    """What tells a base from others, and from what its files were before."""
    place = Path(path)
    if is_hub_id(str(path)) or not place.exists():
        return (str(path),)
    files = sorted(place.rglob("*")) if place.is_dir() else [place]
    states = [(str(file), *_stat(file)) for file in files if file.is_file()]
    return (str(path), str(place.resolve()), *states)


def _stat(file: Path) -> tuple[int, int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


@contextmanager
def kept_meanwhile(base: str | Path) -> Iterator[None]:
    """Within the block this base is read once at most, however often this thread opens it."""
    if kept_by.get() is not None:
        yield
        return
    with KeptBases().in_use(base):
        yield
