"""How many threads PyTorch has and how they wait for each other, which must be decided before torch is imported."""

from __future__ import annotations

import os
import sys

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
    """Give each of several processes its part of the processors, in the environment that they get."""
    environment.setdefault(THREADS[0], str(max(1, (os.cpu_count() or 1) // processes)))


def one_thread_for(base: str | None) -> bool:
    """Compute with one thread where the base is pocket. Returns whether anything was changed.

    Its layers are so small that a second thread brings a tenth on an idle machine, and where other programs are at work
    the two wait for each other most of the time: a training is eight times as slow then (docs/measurements/speed.md).
    A user's own number stays, and so does that of a program that has imported torch already.
    """
    if base not in (None, "pocket") or "torch" in sys.modules or any(name in os.environ for name in THREADS):
        return False
    os.environ[THREADS[0]] = "1"
    return True
