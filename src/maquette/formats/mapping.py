"""Files as memory: bytes that are read from the disk when they are touched."""

from __future__ import annotations

import mmap
import weakref
from pathlib import Path

import torch
from torch import Tensor

from ..files import open_regular

_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)  # Python names it from 3.13 on; without it a file larger than the
# memory could not be mapped at all, as if every page might be written
_AREAS: dict[int, weakref.ref[mmap.mmap]] = {}  # what is mapped, by the address of its first byte


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
    found = torch.frombuffer(area, dtype=torch.uint8)
    start = found.data_ptr()
    _AREAS[start] = weakref.ref(area, lambda gone: _AREAS.pop(start, None) if _AREAS.get(start) is gone else None)
    return found


def unread(tensor: Tensor) -> bool:
    """Let go of the memory that reading a mapped tensor took; touched again, it is read again. Numbers that were
    written into it are lost. Returns whether there was any to go: whole pages, of a contiguous tensor, where the system
    knows how.
    """
    if not hasattr(mmap, "MADV_DONTNEED") or not tensor.is_contiguous() or tensor.device.type != "cpu":
        return False
    begin, end = tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.itemsize
    for start, reference in list(_AREAS.items()):
        area = reference()
        if area is not None and start <= begin and end <= start + len(area):
            first, last = -(-(begin - start) // mmap.PAGESIZE) * mmap.PAGESIZE, end - start
            last -= 0 if last == len(area) else last % mmap.PAGESIZE
            if last > first:
                area.madvise(mmap.MADV_DONTNEED, first, last - first)
            return last > first
    return False
