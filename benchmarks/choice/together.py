"""Several processes of one machine, a graphics card's say, that take whole runs from each other's hands."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Whether the lock was free; then it is held within the block, and given back however the process ends."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """Wait until no other process holds the lock, and hold it within the block."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def share(
    names: Sequence[str], locks: Path, until: float, work: Callable[[str], None], done: Callable[[str], bool]
) -> None:
    """Do `work` for each name that is not done and that no other process holds, as long as the time allows.

    until: of `time.time`, after which nothing more begins.
    """
    for name in names:
        if time.time() > until:
            return
        with claimed(locks / f"{name}.lock") as free:
            if free and not done(name):
                work(name)


def start(
    arguments: Sequence[str], jobs: int, until: float | None = None, module: str = "benchmarks.checkpoint_choice"
) -> int:
    """Run so many processes of a module with these arguments; stop those that work on after `until`, if it is given.
    Returns how many failed.
    """
    processes = [subprocess.Popen([sys.executable, "-m", module, *arguments]) for _ in range(jobs)]
    failed = 0
    for process in processes:
        try:
            failed += process.wait(None if until is None else max(0.1, until - time.time())) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return failed


def results_of(work: Path) -> Iterator[Path]:
    """What `fit` and `report` need of a work folder: all but the trained files."""
    for pattern in ("runs/*/run.json", "runs/*/run.toml", "runs/*/failed.txt", "truth/*.json", "measures*/*.json"):
        yield from sorted(work.glob(pattern))
    yield from (path for path in (work / "subjects.json", work / "known.safetensors") if path.exists())
