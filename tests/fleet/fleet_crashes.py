"""Processes that are killed, or refused by the store, at a chosen write.

Environment: FLEET_KILL = "driver", "worker" or "node" (a worker with its parent, which is Ray's); FLEET_POINTS = folder
of a file per killed process, so that the n-th process dies at the n-th point; FLEET_FIRST, FLEET_LAST = the points;
FLEET_FULL = n: the n-th write of each worker fails as on a full disk, FLEET_REFUSE = path: while that file exists, the
store refuses every commit; FLEET_INCLUSIVE: it cannot create exclusively; FLEET_SETTINGS = fleet.toml of the driver.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

from fleet_fakes import FakeTrainer

from maquette.fleet.store import LocalStore


class Points:
    """Counts the writes of this process, and dies at its own."""

    def __init__(self) -> None:
        self.count = 0
        folder = Path(os.environ["FLEET_POINTS"])
        self.mine = int(os.environ.get("FLEET_FIRST", "1")) + len(list(folder.iterdir()))
        self.last = int(os.environ.get("FLEET_LAST", "1000"))
        self.folder = folder

    def pass_by(self) -> None:
        self.count += 1
        if self.count == self.mine <= self.last:
            (self.folder / str(self.mine)).touch()
            if os.environ["FLEET_KILL"] == "node":
                os.kill(os.getppid(), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing() -> None:
    """Make every beginning, middle and end of a write of this process a point at which it may die."""
    points = Points()
    put, upload, remove = LocalStore._put, LocalStore.upload, LocalStore.remove

    def checked_put(self: LocalStore, data: bytes, target: Path, place: Any = None) -> None:
        def checked_place(*names: Any) -> None:
            points.pass_by()
            (place or os.replace)(*names)
            points.pass_by()

        points.pass_by()
        put(self, data, target, checked_place)

    def checked_upload(self: LocalStore, path: Path, name: str) -> None:
        points.pass_by()
        upload(self, path, name)
        points.pass_by()

    def checked_remove(self: LocalStore, names: Any) -> None:
        points.pass_by()
        remove(self, names)
        points.pass_by()

    LocalStore._put, LocalStore.upload, LocalStore.remove = checked_put, checked_upload, checked_remove  # type: ignore[method-assign]


class CrashingTrainer(FakeTrainer):
    """The worker of crash tests: made first, so that it prepares its process."""

    def __init__(self) -> None:
        if os.environ.get("FLEET_KILL") in ("worker", "node"):
            die_while_writing()
        LocalStore.exclusive = "FLEET_INCLUSIVE" not in os.environ
        if "FLEET_FULL" in os.environ or "FLEET_REFUSE" in os.environ:
            refuse_writes()


def refuse_writes() -> None:
    put, count = LocalStore._put, 0
    at, refusal = int(os.environ.get("FLEET_FULL", "0")), os.environ.get("FLEET_REFUSE", "")

    def checked_put(self: LocalStore, data: bytes, target: Path, place: Any = None) -> None:
        nonlocal count
        count += 1
        if count == at:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        if refusal and target.name == "result.json" and Path(refusal).exists():
            raise PermissionError(errno.EACCES, "The store refuses", str(target))
        put(self, data, target, place)

    LocalStore._put = checked_put  # type: ignore[method-assign]


def drive() -> None:
    """A driver in a process of its own: python fleet_crashes.py ROOT JOBS WORKERS."""
    from maquette.config.fleet import FleetConfig
    from maquette.fleet import driving

    if os.environ.get("FLEET_KILL") == "driver":
        die_while_writing()
    root, jobs, workers = sys.argv[1:]
    settings = {"settings": os.environ["FLEET_SETTINGS"]} if "FLEET_SETTINGS" in os.environ else {}
    config = FleetConfig.parse({"root": root, "jobs": jobs, "workers": int(workers), **settings})
    print(driving.run(config, trainer="fleet_crashes:CrashingTrainer").committed)


if __name__ == "__main__":
    drive()
