"""Tries inputs one after the other and notes what was neither read nor refused in a sentence, in time and in memory."""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import FrameType

from maquette.errors import MaquetteError

# Writes one input into the folder and returns what reads it.
Case = Callable[[random.Random, Path], Callable[[], object]]

SECONDS = 2.0  # of the processor's time for one input
MEMORY = 1_000_000_000  # bytes that one input may add
_FORBIDDEN = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
)


class Slow(BaseException):
    """An input took too long."""


@dataclass
class Fault:
    """An input that went wrong: its number makes it again with the seed."""

    number: int
    what: str
    trace: str


@dataclass
class Outcome:
    """How many inputs were read and refused, the slowest, and the faults."""

    read: int = 0
    refused: int = 0
    slowest: float = 0.0
    faults: list[Fault] = field(default_factory=list)


_happened: list[str] = []
_watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watching and event in _FORBIDDEN:
        _happened.append(f"{event} {arguments!r:.100}")


def forget_peak() -> None:
    """Let peak_memory count from here on, where the system allows it (Linux; not in every container)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Most bytes of memory that this process has had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@contextmanager
def timed(seconds: float) -> Iterator[None]:
    """Raise Slow within when the process has computed for so long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Slow(f"took more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def one(case: Case, seed: int, number: int, outcome: Outcome, seconds: float = SECONDS) -> None:
    """Try input `number`. What is wrong with it goes into outcome.faults."""
    global _watching
    rng = random.Random(f"{seed}/{number}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        here = Path.cwd()
        os.chdir(folder)
        try:
            action = case(rng, Path(folder))
            forget_peak()
            before, began = peak_memory(), time.process_time()
            _watching = True
            what, trace = _tried(action, outcome, seconds)
            _watching = False
            outcome.slowest = max(outcome.slowest, time.process_time() - began)
            if not what and peak_memory() - before > MEMORY:
                what = f"took {(peak_memory() - before) / 1e9:.1f} GB"
            if not what and _happened:
                what = f"did {_happened[0]}"
            if not what and Path(folder, "trap").exists():
                what = "wrote the file trap"
        finally:
            _watching = False
            os.chdir(here)
    _happened.clear()
    if what:
        outcome.faults.append(Fault(number, what, trace))


def _tried(action: Callable[[], object], outcome: Outcome, seconds: float) -> tuple[str, str]:
    try:
        with timed(seconds):
            action()
        outcome.read += 1
    except MaquetteError as error:
        outcome.refused += 1
        sentence = str(error)
        if not sentence.strip() or len(sentence) > 20_000:
            return f"a refusal of {len(sentence)} characters", ""
    except (Exception, Slow) as error:
        return f"{type(error).__name__}: {str(error)[:200]}", traceback.format_exc()
    return "", ""


@cache
def _watch() -> None:
    """Hear of every program that Python starts; a hook stays for the life of the process."""
    sys.addaudithook(_hook)


def run(case: Case, count: int, seed: int, seconds: float = SECONDS, first: int = 0) -> Outcome:
    """Try `count` inputs from number `first` on."""
    _watch()
    outcome = Outcome()
    for number in range(first, first + count):
        one(case, seed, number, outcome, seconds)
    return outcome
