"""`maquette fleet run`: the driver. It holds no state that the store has not, and may be killed at any time."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from ..events import Cancel, Listener, ignore
from . import layout
from .endings import Endings
from .executor import Executor
from .jobs import Bad, Job
from .local import LocalExecutor
from .planning import Opened, Submission, jobs_of, open_root
from .schedule import Schedule, Waiting
from .tally import RunResult, Tally
from .trainer import USUAL

LOOK = 5.0  # seconds between looks at what was cancelled


def run(
    config: FleetConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    executor: Executor | None = None,
    trainer: str = USUAL,
    runs: Path | None = None,
) -> RunResult:
    """Run every job that has no result yet. Setting `cancel` drains: workers stop at the next step, and keep what is
    worth it; the same call goes on.

    executor: who works, instead of what config.address says; it is closed at the end. trainer: "module:Class" of a
    trainer.Trainer. runs: folder where each job is trained under its id, and its run folder stays; nothing is uploaded
    then, and who goes on goes on there.

    Raises MaquetteError for a file of jobs that is none, and for a store that cannot be written.
    """
    if executor is None and config.root.startswith("memory://"):
        raise MaquetteError(f"{config.root} is the memory of one process, which workers do not share: name a folder.")
    opened = open_root(config, write=True)
    driver = Driver(config, opened, on_event, cancel or Cancel(), runs=runs)
    driver.read()
    if not driver.schedule.waiting:
        return driver.tally.result("finished")
    return driver.work(executor or make_executor(config, trainer))


def make_executor(config: FleetConfig, trainer: str = USUAL) -> Executor:
    """Who works, by config.address. Raises MaquetteError for an address that is none."""
    if config.address == "local":
        return LocalExecutor(config.workers, config.devices, trainer, slots=config.slots)
    if config.address == "auto" or config.address.startswith("ray://"):
        from .on_ray import RayExecutor

        return RayExecutor(config.address, config.workers, trainer, config.slots)
    raise MaquetteError(f"address = {config.address!r} is none; give local, auto or ray://host:10001.")


class Driver:
    """One `fleet run`: what is to be done, and who is at it. What follows from it is `endings`."""

    def __init__(
        self, config: FleetConfig, opened: Opened, on_event: Listener, cancel: Cancel,
        clock: Callable[[], float] = time.time, runs: Path | None = None,
    ) -> None:  # fmt: skip
        self.config, self.opened, self.store = config, opened, opened.store
        self.cancel, self.clock = cancel, clock
        self.tally = Tally(config.root, on_event)
        self.schedule = Schedule(opened.settings.quotas, clock)
        self.endings = Endings(config, opened, self.schedule, self.tally, clock, runs)
        self.out: dict[int, Waiting] = {}
        self.number = 0
        self.looked = 0.0

    def read(self) -> None:
        """Find what is to be done, and write the submission."""
        submission = Submission(self.store) if self.config.jobs is not None else None
        done: list[Job] = []
        for job in jobs_of(self.config, self.store, self.opened.settings):
            if isinstance(job, Bad):
                self._bad(job)
                continue
            if submission is not None:
                submission.add(job)
            state = self.opened.state(job)
            if state == "new" and job.deadline < self.clock():
                state = "late"
            if state == "new":
                self.endings.add(job)
            else:
                self.tally.counts[state if state in ("late", "cancelled") else "known"] += 1
            self.endings.uses(job, state == "done")
            if self.config.delete_photos and state == "done":
                done.append(job)
        if submission is not None:
            submission.write()
        for job in done:
            self.endings.forget_photos(job, 0)

    def _bad(self, bad: Bad) -> None:
        if self.opened.state_of_bad(bad) == "invalid":
            self.tally.invalid(bad.place, bad.id, bad.why)
        else:
            self.tally.counts["known"] += 1

    def work(self, executor: Executor) -> RunResult:
        """Until every job has ended, or the caller cancels."""
        draining = False
        try:
            while self.out or (self.schedule.waiting and not draining):
                if self.cancel.is_set() and not draining:
                    draining = True
                    executor.drain()
                if not draining:
                    self._look(executor)
                    self._fill(executor)
                if not self.out and not self._delayed():
                    break
                began = time.monotonic()
                outcomes = executor.wait(min(1.0, self.schedule.pause() or 1.0))
                self.tally.waited += time.monotonic() - began
                for outcome in outcomes:
                    if (item := self.out.pop(outcome.number, None)) is not None:
                        self.endings.heard(item, outcome, draining)
        finally:
            sessions = executor.close()
            self.endings.parts.flush()
            session = json.dumps({"began": self.tally.began, "workers": sessions}).encode()
            self.store.write(f"{layout.SESSIONS}/{uuid.uuid4().hex[:16]}.json", session)
        self.tally.counts["held"] += len(self.schedule.held())
        return self.tally.result("stopped" if draining and self._left() else "finished")

    def _left(self) -> bool:
        return bool(self.schedule.waiting or self.tally.counts["drained"])

    def _delayed(self) -> bool:
        return self.schedule.pause() is not None

    def _look(self, executor: Executor) -> None:
        """See what was cancelled meanwhile."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        self.opened.cancelled = set(self.store.folders(layout.CANCELLED))
        for number, item in self.out.items():
            if self._is_cancelled(item):
                executor.cancel(number)

    def _is_cancelled(self, item: Waiting) -> bool:
        return layout.name_hash(item.job.tenant, item.job.id) in self.opened.cancelled

    def _fill(self, executor: Executor) -> None:
        """Give workers what they can hold."""
        while len(self.out) < executor.capacity and (item := self.schedule.next()) is not None:
            ends = "cancelled" if self._is_cancelled(item) else "late" if item.job.deadline < self.clock() else ""
            if ends:
                self.schedule.ended(item.job.tenant, 0.0, 0.0)
                self.endings.left_out(item.job, ends)
                continue
            self.number += 1
            self.out[self.number] = item
            executor.submit(self.endings.task(item, self.number), item.avoid)
