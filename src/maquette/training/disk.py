"""Disk full while a run writes: nothing complete is lost, and the message says how to continue."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import FULL, MaquetteError
from ..run_folder import RunFolder
from . import state

REFUSED = FULL | {errno.EFBIG}


@contextmanager
def explain_full_disk(folder: RunFolder) -> Iterator[None]:
    """Turn a full disk, quota or file size limit into a MaquetteError that says what is kept and how to continue."""
    try:
        yield
    except (OSError, MaquetteError) as error:
        fault = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(fault, OSError) or fault.errno not in REFUSED:
            raise
        raise MaquetteError(_sentence(folder, str(error).rstrip("."))) from error


def _sentence(folder: RunFolder, fault: str) -> str:
    if not folder.config.is_file():
        return f"The disk is full ({fault}); the run has not begun. Make room and start it again."
    found = state.latest(folder)
    kept = f"everything up to step {found[0]} is intact" if found else "no step had been saved yet"
    return f"The disk is full ({fault}); {kept}. Make room and go on with: maquette train --resume {folder.path}"
