"""`maquette fleet run`: the driver. It holds no state that the store has not, and may be killed at any time."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from . import failures, index, keys, layout, photos
from .attempt import prepare
from .executor import Executor
from .jobs import Bad, Job, listed_files
from .local import LocalExecutor
from .planning import Opened, Submission, jobs_of, open_root
from .records import Outcome, Result, Task
from .schedule import Schedule, Waiting
from .trainer import USUAL

LOOK = 5.0  # seconds between looks at what was cancelled
BUSY = 3.0  # seconds after which a job is looked at again that another driver's worker is at


@dataclass
class RunResult:
    """What a run did. status: "finished", or "stopped" by a signal, to go on with the same command."""

    root: str
    status: str
    committed: int  # results of this run
    done: int
    rejected: int
    failed: int
    known: int  # done before, or by others meanwhile
    cancelled: int
    late: int  # whose deadline had passed
    held: int  # of tenants whose budget is used up
    invalid: int
    attempts: int
    seconds: float
    driver_seconds: float  # of the driver's own work, between waits
    bad: list[dict[str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # why jobs were rejected or failed, the first of them

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(
    config: FleetConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    executor: Executor | None = None,
    trainer: str = USUAL,
) -> RunResult:
    """Run every job that has no result yet. Setting `cancel` drains: workers stop at the next step, and keep what is
    worth it; the same call goes on.

    executor: who works, instead of what config.address says; it is closed at the end. trainer: "module:Class" of a
    trainer.Trainer. Raises MaquetteError for a file of jobs that is none, and for a store that cannot be written.
    """
    if executor is None and config.root.startswith("memory://"):
        raise MaquetteError(f"{config.root} is the memory of one process, which workers do not share: name a folder.")
    opened = open_root(config, write=True)
    driver = Driver(config, opened, on_event, cancel or Cancel())
    driver.read()
    if not driver.schedule.waiting:
        return driver.result("finished")
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
    """One `fleet run`."""

    def __init__(
        self, config: FleetConfig, opened: Opened, on_event: Listener, cancel: Cancel,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.config, self.opened, self.store = config, opened, opened.store
        self.settings, self.on_event, self.cancel, self.clock = opened.settings, on_event, cancel, clock
        self.schedule = Schedule(self.settings.quotas, clock)
        self.parts = index.Parts(self.store)
        self.out: dict[int, Waiting] = {}
        self.counts: Counter[str] = Counter()
        self.bad: list[dict[str, str]] = []
        self.problems: list[str] = []
        self.random = random.Random()
        self.first_pause = failures.FIRST_PAUSE
        self.number = 0
        self.total = 0
        self.twins: dict[tuple[str, str], list[Job]] = {}  # of a job, the others that are the same work
        self.photos: Counter[str] = Counter()  # jobs without a result, by their photos
        self.began = time.monotonic()
        self.waited = 0.0
        self.looked = 0.0

    def read(self) -> None:
        """Find what is to be done, and write the submission."""
        submission = Submission(self.store) if self.config.jobs is not None else None
        done: list[Job] = []
        for job in jobs_of(self.config, self.store, self.settings):
            if isinstance(job, Bad):
                self._bad(job)
                continue
            if submission is not None:
                submission.add(job)
            state = self.opened.state(job)
            if state == "new" and job.deadline < self.clock():
                state = "late"
            if state == "new":
                self._add(job)
            else:
                self.counts[state if state in ("late", "cancelled") else "known"] += 1
            if self.config.delete_photos:
                self.photos[_place(job)] += state != "done"
                done += [job] if state == "done" else []
        if submission is not None:
            submission.write()
        for job in done:
            self._forget_photos(job, 0)

    def _add(self, job: Job) -> None:
        """A new job; one that is the same work as another waits for its result."""
        self.total += 1
        first = (job.tenant, job.mark) not in self.twins
        twins = self.twins.setdefault((job.tenant, job.mark), [])
        if first:
            self.schedule.add(Waiting(job, self.clock()))
        else:
            twins.append(job)

    def _bad(self, bad: Bad) -> None:
        if self.opened.state_of_bad(bad) != "invalid":
            self.counts["known"] += 1
            return
        self.counts["invalid"] += 1
        if len(self.bad) < 100:
            self.bad.append({"place": bad.place, "id": bad.id, "why": bad.why})
        self.on_event(Event("warning", {"message": f"{bad.place}: {bad.why}"}))

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
                self.waited += time.monotonic() - began
                for outcome in outcomes:
                    self._heard(outcome, draining)
        finally:
            sessions = executor.close()
            self.parts.flush()
            told = json.dumps({"began": self.began, "workers": sessions}).encode()
            self.store.write(f"{layout.SESSIONS}/{uuid.uuid4().hex[:16]}.json", told)
        self.counts["held"] += len(self.schedule.held())
        return self.result("stopped" if draining and self._left() else "finished")

    def _left(self) -> bool:
        return bool(self.schedule.waiting or self.counts["drained"])

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

    def _left_out(self, job: Job, why: str) -> None:
        """A job ends without a result; another that is the same work takes its place."""
        self.counts[why] += 1
        twins = self.twins.pop((job.tenant, job.mark), [])
        if twins:
            self.twins[job.tenant, job.mark] = twins[1:]
            self.schedule.add(Waiting(twins[0], self.clock()))

    def _is_cancelled(self, item: Waiting) -> bool:
        return layout.name_hash(item.job.tenant, item.job.id) in self.opened.cancelled

    def _fill(self, executor: Executor) -> None:
        """Give workers what they can hold."""
        while len(self.out) < executor.capacity and (item := self.schedule.next()) is not None:
            ends = "cancelled" if self._is_cancelled(item) else "late" if item.job.deadline < self.clock() else ""
            if ends:
                self.schedule.ended(item.job.tenant, 0.0, 0.0)
                self._left_out(item.job, ends)
                continue
            self.number += 1
            self.out[self.number] = item
            executor.submit(self._task(item), item.avoid)

    def _task(self, item: Waiting) -> Task:
        job = item.job
        return Task(
            self.number, job.tenant, job.id, job.row, job.mark, job.body, self.store.address, item.trial,
            item.low_memory, item.alone, item.ready, item.wasted,
            str(self.config.scratch) if self.config.scratch else None, self.settings.prices,
        )  # fmt: skip

    def _heard(self, outcome: Outcome, draining: bool) -> None:
        """What follows from how an attempt ended."""
        item = self.out.pop(outcome.number, None)
        if item is None:
            return
        money = float((outcome.result or {}).get("cost") or 0.0)
        self.schedule.ended(item.job.tenant, outcome.seconds, money)
        self.counts["attempts"] += outcome.state not in ("known", "busy")
        if outcome.state == "committed":
            self._committed(item, outcome)
        elif outcome.state == "known":
            self._known(item, outcome.result)
        elif outcome.state == "cancelled":
            self._left_out(item.job, "cancelled")
        elif outcome.state == "drained" and draining:
            self.counts["drained"] += 1
        elif outcome.state == "busy":
            item.busy += 1
            self.schedule.add(item, BUSY)
        elif outcome.state == "drained":
            self.schedule.add(item)
        else:
            self._failed(item, outcome, draining)

    def _committed(self, item: Waiting, outcome: Outcome) -> None:
        told = outcome.result or {}
        if outcome.uncommitted:
            try:
                place = layout.result(told["tenant"], told["key"])
                self.store.create(place, (json.dumps(told, separators=(",", ":")) + "\n").encode())
            except FileExistsError:
                return self._known(item, None)
        self.parts.add(told)
        self.opened.index.add(told)
        self.counts["committed"] += 1
        self.counts[told["status"]] += 1
        if told["status"] != "done":
            self._problem(item, told["message"])
        else:
            self._forget_photos(item.job)
        self._ended(item.job, told)
        self._tell()

    def _ended(self, job: Job, result: dict[str, Any] | None) -> None:
        """A job has a result, and so have the others that are the same work."""
        for twin in self.twins.pop((job.tenant, job.mark), []):
            self._known(Waiting(twin, 0.0), result)

    def _known(self, item: Waiting, result: dict[str, Any] | None) -> None:
        """Somebody else has done it: note that this row is done by that result."""
        self.counts["known"] += 1
        if result is not None:
            line = index.alias(result, item.job.mark, item.job.row, item.job.id)
            self.parts.add(line)
            self.opened.index.add(line)
        if result is None or result["status"] == "done":
            self._forget_photos(item.job)
        self._ended(item.job, result)
        self._tell()

    def _failed(self, item: Waiting, outcome: Outcome, draining: bool) -> None:
        """Try again, or give the job a result that says why not."""
        item.wasted += outcome.seconds
        kind = outcome.kind or "machine"
        if outcome.state == "died":
            item.kills[outcome.node] = item.kills.get(outcome.node, 0) + 1
            if len(item.kills) >= failures.KILLS or sum(item.kills.values()) >= failures.KILLS_HERE:
                kind = "poison"
        if kind == "user" and not outcome.key:  # its photos went away: nothing to commit under
            self.counts["rejected"] += 1
            return self._problem(item, outcome.message)
        again = (kind == "oom" and not item.low_memory) or (kind == "machine" and item.trial < self.config.attempts)
        if not again or draining:
            return self._give_up(item, outcome, kind) if not draining else self._drop(item)
        item.trial += 1
        item.low_memory |= kind == "oom" and outcome.slots == 1  # alone it may have memory enough
        item.alone = True
        if kind == "machine":
            item.avoid.add(outcome.node)
        wait = failures.pause(item.trial - 1, self.random, self.first_pause) if kind == "machine" else 0.0
        self.on_event(Event("warning", {"message": f"{item.job.id}: {outcome.message} It is tried again."}))
        self.schedule.add(item, wait)

    def _drop(self, item: Waiting) -> None:
        self.counts["drained"] += 1

    def _give_up(self, item: Waiting, outcome: Outcome, kind: Any) -> None:
        """Commit the failure, so that it is seen and not tried again until `fleet retry`."""
        self._problem(item, outcome.message)
        key = outcome.key or self._key(item)
        if not key:
            self.counts["failed"] += 1
            return
        job = item.job
        result = Result(
            key, job.tenant, job.id, job.row, job.mark, "failed", kind=kind, message=outcome.message, trial=item.trial,
            node=outcome.node, submitted=item.ready, started=self.clock(), finished=self.clock(),
            wasted_seconds=item.wasted, low_memory=item.low_memory,
        )  # fmt: skip
        try:
            self.store.create(layout.result(job.tenant, key), result.to_bytes())
        except FileExistsError:
            return self._known(item, None)
        except OSError:  # the store is what fails: the job stays without a result
            self.counts["failed"] += 1
            return
        self.parts.add(asdict(result))
        self.counts["committed"] += 1
        self.counts["failed"] += 1
        self._ended(job, asdict(result))
        self._tell()

    def _key(self, item: Waiting) -> str:
        """A job's key, found here because no attempt came so far; "" where it cannot be."""
        try:
            made = prepare(self._task(item), keys.Digests())
        except (OSError, MaquetteError):
            return ""
        made.close()
        return made.key

    def _problem(self, item: Waiting, message: str) -> None:
        if len(self.problems) < 100:
            self.problems.append(f"{item.job.id}: {message}")
        self.on_event(Event("warning", {"message": f"{item.job.id}: {message}"}))

    def _forget_photos(self, job: Job, count: int = 1) -> None:
        """Delete photos that no job needs any more, where that is wanted."""
        if not self.config.delete_photos:
            return
        place = _place(job)
        self.photos[place] -= count
        if self.photos[place] <= 0:
            try:
                photos.delete(listed_files(job))
            except MaquetteError:  # they are gone already
                return

    def _tell(self) -> None:
        done = self.counts["committed"]
        self.on_event(Event("progress", {"what": "jobs", "done": min(done, self.total), "of": self.total}))

    def result(self, status: str) -> RunResult:
        c, seconds = self.counts, time.monotonic() - self.began
        return RunResult(
            self.config.root, status, c["committed"], c["done"], c["rejected"], c["failed"], c["known"], c["cancelled"],
            c["late"], c["held"], c["invalid"], c["attempts"], seconds, seconds - self.waited, self.bad, self.problems,
        )  # fmt: skip


def _place(job: Job) -> str:
    return json.dumps(json.loads(job.body)["photos"])
