"""Where the command begins: Ctrl-C ends it in one line even while its modules are being read."""

from __future__ import annotations

import os
import signal
from typing import Any

INTERRUPTED = 130  # exit code after Ctrl-C, as shells have it


def main() -> None:
    """The `maquette` command, as its own process."""
    signal.signal(signal.SIGINT, _leave)
    from .main import main as command

    signal.signal(signal.SIGINT, _stop)
    try:
        command()
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _leave(number: int, frame: Any) -> None:
    """Nothing has begun: end at once, without the traceback of whatever module is being read."""
    os.write(2, b"\nStopped; nothing was done.\n")
    os._exit(INTERRUPTED)


def _stop(number: int, frame: Any) -> None:
    """End the command from where it is, so that what it has open is closed; `train` has its own way meanwhile."""
    os.write(2, b"\nStopped.\n")
    raise KeyboardInterrupt
