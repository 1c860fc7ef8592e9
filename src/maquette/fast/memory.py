"""Keep freed memory for the next step instead of giving it back to the system.

The C library of Linux (glibc) returns every large tensor to the kernel when it is freed, and gets zeroed pages for the
next one: a step of a full-size UNet takes 160,000 such page faults, about 7 % of its time.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them, from <malloc.h>
LARGEST = 2**31 - 1
USUAL_MMAP, USUAL_TRIM = 2**25, 2**26  # what glibc's own thresholds grow to while large tensors come and go
_keeping = False


def keep() -> bool:
    """From now on, let this process keep what it frees. Returns whether the C library knows how; else nothing changes.

    What is kept is about the memory of the largest moment: before glibc 2.38 an aligned tensor never gets just the
    place of one of its size again, so that a few of them spread before they settle.
    """
    global _keeping
    library = _glibc()
    _keeping = library is not None and all(library.mallopt(what, LARGEST) for what in (MMAP_THRESHOLD, TRIM_THRESHOLD))
    return _keeping


def keep_no_longer() -> bool:
    """Undo `keep`: thresholds as glibc sets them for a process of large tensors, and what is free goes back once."""
    global _keeping
    _keeping, library = False, _glibc()
    usual = ((MMAP_THRESHOLD, USUAL_MMAP), (TRIM_THRESHOLD, USUAL_TRIM))
    return library is not None and all(library.mallopt(what, size) for what, size in usual) and release()


@contextmanager
def kept() -> Iterator[None]:
    """Keep within the block, unless the process keeps already: a training that draws goes on keeping."""
    if _keeping or not keep():
        yield
        return
    try:
        yield
    finally:
        keep_no_longer()


def release() -> bool:
    """Give back once what is free just now, as after pictures, which need more than a step. Returns whether any was."""
    library = _glibc()
    return library is not None and bool(library.malloc_trim(0))


def installed() -> int | None:
    """Bytes of the machine's memory; None where the system does not tell."""
    sysconf = getattr(os, "sysconf", None)
    if sysconf is None or "SC_PHYS_PAGES" not in os.sysconf_names:  # Windows
        return None
    return int(sysconf("SC_PHYS_PAGES")) * int(sysconf("SC_PAGE_SIZE"))


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
