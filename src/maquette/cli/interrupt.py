"""Ctrl-C as a wish to end well."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def interruptible(cancel: threading.Event, said: str = "Stopping after this step, and saving …") -> Iterator[None]:
    """Ctrl-C and SIGTERM set `cancel`; a second one ends the program at once (the files on disk stay whole)."""

    def handle(number: int, frame: Any) -> None:
        if cancel.is_set():
            print("\nEnded at once; what was saved is whole.", file=sys.stderr)
            raise KeyboardInterrupt
        cancel.set()
        print(f"\n{said}", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
