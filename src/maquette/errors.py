"""The one exception that a user may meet: a clear sentence, the file at fault and the remedy."""

from __future__ import annotations

import errno

FULL = {errno.ENOSPC, errno.EDQUOT}


class MaquetteError(Exception):
    """The input is at fault. `str(error)` is one sentence for a person: what is wrong, with which file, and what to do.

    The command line prints it without a traceback and exits with 1.
    """


def sentence_of(error: OSError) -> str:
    """What the system said of which file; where the disk is full, with the remedy."""
    if error.errno in FULL:
        where = f", writing {error.filename}" if error.filename else ""
        return f"The disk is full{where}: make room and call the command again."
    return f"{error.filename or 'a file'}: {error.strerror or error}"


class OutOfMemory(MaquetteError):
    """The memory does not suffice for the settings on this machine."""


class Diverged(MaquetteError):
    """The training ran into numbers that are not finite, as it would again."""
