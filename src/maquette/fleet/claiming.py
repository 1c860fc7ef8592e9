"""Claims: signs of life of who works on a job, so that others leave it alone. They only save work."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from . import layout
from .store import Store

BEAT = 10.0  # seconds between signs of life in an attempt's claim
LEASE = 60.0  # seconds without one after which nobody is thought to work on it


@contextlib.contextmanager
def claimed(store: Store, folder: str, node: str) -> Iterator[None]:
    """Tell others that somebody works on it, in an attempt's folder. What counts is the result."""
    over = threading.Event()
    place = f"{folder}/claim.json"
    claim = {"host": socket.gethostname(), "pid": os.getpid(), "node": node}

    def sign() -> None:
        store.write(place, json.dumps({**claim, "beat": time.time()}).encode())

    def beat() -> None:
        while not over.wait(BEAT):
            with contextlib.suppress(Exception):  # the next beat may come through
                sign()

    sign()
    beating = threading.Thread(target=beat, daemon=True)
    beating.start()
    try:
        yield
    finally:
        over.set()
        beating.join()
        with contextlib.suppress(Exception):
            store.remove([place])


def claims(store: Store, tenant: str, key: str) -> list[dict[str, Any]]:
    """The claims of all attempts at a job."""
    found = []
    for name in store.folders(layout.attempts(tenant, key)):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found.append(json.loads(store.read(f"{layout.attempts(tenant, key)}/{name}/claim.json")))
    return found


def alive(claim: dict[str, Any], now: Callable[[], float] = time.time) -> bool:
    """Whether somebody gave a sign of life lately; of this machine's processes it is known at once."""
    if claim.get("host") == socket.gethostname() and not runs(int(claim.get("pid", 0))):
        return False
    return now() - float(claim.get("beat", 0.0)) < LEASE


def runs(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, SystemError):  # another user's; on Windows, where nothing can be told
        return True
    return True
