"""Files as memory: bytes that are read from the disk when they are touched."""

from __future__ import annotations

import mmap
from pathlib import Path

import torch
from torch import Tensor

from ..files import open_regular

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python names it from 3.13 on; without it a file larger than the
# memory could not be mapped at all, as if every page might be written


def mapped(path: str | Path, size: int) -> Tensor:
    """The first `size` bytes of a file, (size,) uint8. Written to, a page becomes a copy: the file never changes.

    size: at least 1. Raises OSError where the system cannot map the file.
    """
    with open_regular(path) as file:
        if hasattr(mmap, "MAP_PRIVATE"):
            kept = mmap.MAP_PRIVATE | _NO_RESERVE
            area = mmap.mmap(file.fileno(), size, flags=kept, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        else:  # Windows
            area = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY)
    return torch.frombuffer(area, dtype=torch.uint8)
