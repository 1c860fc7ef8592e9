"""The one exception that a user may meet: a clear sentence, the file at fault and the remedy."""

from __future__ import annotations


class MaquetteError(Exception):
    """The input is at fault. `str(error)` is one sentence for a person: what is wrong, with which file, and what to do.

    The command line prints it without a traceback and exits with 1.
    """


class OutOfMemory(MaquetteError):
    """The memory does not suffice for the settings on this machine."""


class Diverged(MaquetteError):
    """The training ran into numbers that are not finite, as it would again."""
