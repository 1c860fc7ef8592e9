"""Why an attempt failed, which decides whether and where it is tried again."""

from __future__ import annotations

import errno
import random

from ..errors import FULL, Diverged, MaquetteError, OutOfMemory, sentence_of
from .records import Kind

MACHINE = FULL | {errno.EIO, errno.ESTALE, errno.ENODEV, errno.EMFILE, errno.ENFILE, errno.EROFS}
FINAL: frozenset[Kind] = frozenset(("user", "nan", "poison", "budget"))
"""Kinds that no repetition mends; a result is committed for them at once."""
KILLS, KILLS_HERE = 2, 3
"""Nodes on which a job has killed its worker, and times on one node, after which it is held to be poison."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a job is tried again


class StoreError(MaquetteError):
    """The object store refused or lost a request, otherwise than by an OSError."""


def kind_of(error: BaseException) -> Kind:
    """The class of a failure."""
    chain = list(_chain(error))
    if any(isinstance(one, OSError) and one.errno in MACHINE for one in chain):
        return "machine"  # though the sentence about it is for a user
    for one in chain:
        if isinstance(one, StoreError):
            return "machine"
        if isinstance(one, OutOfMemory | MemoryError) or type(one).__name__ == "OutOfMemoryError":
            return "oom"
        if isinstance(one, Diverged):
            return "nan"
    return "user" if isinstance(error, MaquetteError) else "machine"


def sentence(error: BaseException) -> str:
    """What is told of it: a sentence for a person, otherwise with its kind."""
    if isinstance(error, OSError) and error.errno in FULL:
        return sentence_of(error)
    text = str(error) or type(error).__name__
    return text if isinstance(error, MaquetteError) else f"{type(error).__name__}: {text}"


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what it came from, outermost first."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def pause(trial: int, source: random.Random, first: float = FIRST_PAUSE) -> float:
    """Seconds to wait after so many failed attempts: doubled each time, and any part of it, so that jobs which failed
    together do not come back together.
    """
    return source.uniform(0.5, 1.0) * min(LONGEST_PAUSE, first * 2.0 ** (trial - 1))
