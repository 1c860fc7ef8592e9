"""The one exception that a user may meet: a clear sentence, the file at fault and the remedy."""

from __future__ import annotations


class MaquetteError(Exception):
    """The input is at fault. `str(error)` is one sentence for a person: what is wrong, with which file, and what to do.

    The command line prints it without a traceback and exits with 1.
    """
