"""How many threads PyTorch has and how they wait for each other, which must be decided before torch is imported."""

from __future__ import annotations

import os
import sys

TORCH_CAME_FIRST = "torch" in sys.modules
"""Whether this package is a guest in a program that uses torch itself."""
SHARED = "MAQUETTE_THREADS_SHARED"
"""Beside a number of threads that `share_among` gave, which is nobody's wish."""
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Names by which a user decides how many threads there are."""
SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Names by which a user decides it: OpenMP's own, and those of GNU's and of Intel's and LLVM's libraries."""
CHOSEN = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "1000"}
"""GNU's library looks this often before a thread sleeps; the others, which lack the number, sleep as they see fit."""


def wait_asleep() -> bool:
    """Let threads that wait for others sleep after a short spin. Returns whether anything was changed.

    A thread that spins keeps the one it waits for from running where another process wants the processor too: steps
    take several times as long. One that sleeps at once is late on an idle machine. The short spin is as quick as
    PyTorch's way when idle and keeps nearly all of the gain when busy (`python -m benchmarks.busy`). Nothing is changed
    where the user has a setting of their own, or where a program that imports this one has imported torch already.
    """
    if "torch" in sys.modules or any(name in os.environ for name in SETTINGS):
        return False
    os.environ.update(CHOSEN)
    return True


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_among(environment: dict[str, str], processes: int) -> None:
    """Give each of several processes its part of the processors, in the environment that they get; a user's own number
    stays.
    """
    if not any(name in environment for name in THREADS):
        environment[THREADS[0]] = str(max(1, processors() // processes))
        environment[SHARED] = "1"


def number_decided() -> bool:
    """Whether somebody else decided how many threads there are: the user by a name of THREADS, or a program that had
    imported torch before this package.
    """
    return TORCH_CAME_FIRST or (SHARED not in os.environ and any(name in os.environ for name in THREADS))
