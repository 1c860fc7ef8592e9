"""What follows from how an attempt ended: a result, another trial, or nothing; and what it means for other jobs."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..config.fleet import FleetConfig
from ..errors import MaquetteError
from . import failures, index, keys, layout, photos
from .jobs import Job
from .planning import Opened
from .preparing import prepare
from .records import Outcome, Result, Task
from .schedule import Schedule, Waiting
from .tally import Tally

BUSY = 3.0  # seconds after which a job is looked at again that another driver's worker is at


class Endings:
    """The jobs of one `fleet run` that have no result yet, and what becomes of them."""

    def __init__(
        self, config: FleetConfig, opened: Opened, schedule: Schedule, tally: Tally, clock: Callable[[], float],
        runs: Path | None = None,
    ) -> None:  # fmt: skip
        """runs: folder where run folders stay, instead of the workers' scratch folders."""
        self.config, self.opened, self.store = config, opened, opened.store
        self.schedule, self.tally, self.counts, self.clock = schedule, tally, tally.counts, clock
        self.runs = runs
        self.parts = index.Parts(self.store)
        self.random = random.Random()
        self.first_pause = failures.FIRST_PAUSE
        self.twins: dict[tuple[str, str], list[Job]] = {}  # of a job, the others that are the same work
        self.photos: Counter[str] = Counter()  # jobs without a result, by their photos

    def add(self, job: Job) -> None:
        """A new job; one that is the same work as another waits for its result."""
        self.tally.total += 1
        first = (job.tenant, job.mark) not in self.twins
        twins = self.twins.setdefault((job.tenant, job.mark), [])
        if first:
            self.schedule.add(Waiting(job, self.clock()))
        else:
            twins.append(job)

    def uses(self, job: Job, done: bool) -> None:
        """Count who needs a job's photos, where they are to be deleted in the end."""
        if self.config.delete_photos:
            self.photos[_place(job)] += not done

    def heard(self, item: Waiting, outcome: Outcome, draining: bool) -> None:
        """An attempt at a job has ended."""
        money = float((outcome.result or {}).get("cost") or 0.0)
        self.schedule.ended(item.job.tenant, outcome.seconds, money)
        self.counts["attempts"] += outcome.state not in ("known", "busy", "unpriced")
        if outcome.state == "committed":
            self._committed(item, outcome)
        elif outcome.state == "known":
            self._known(item, outcome.result)
        elif outcome.state == "cancelled":
            self.left_out(item.job, "cancelled")
        elif outcome.state == "drained" and draining:
            self.counts["drained"] += 1
        elif outcome.state == "busy":
            item.busy += 1
            self.schedule.add(item, BUSY)
        elif outcome.state == "drained":
            self.schedule.add(item)
        elif outcome.state == "unpriced":
            self.schedule.add(item)
            if self.schedule.hold(item.job.tenant):
                self.tally.problem(item.job.tenant, outcome.message)
        else:
            self._failed(item, outcome, draining)

    def task(self, item: Waiting, number: int) -> Task:
        """The next attempt at a job."""
        prices, quota = self.opened.settings.prices, self.opened.settings.quotas.get(item.job.tenant)
        limited = quota is not None and quota.money is not None
        return item.task(number, self.store.address, self.config.scratch, prices, limited, self.runs)

    def left_out(self, job: Job, why: str) -> None:
        """A job ends without a result; another that is the same work takes its place."""
        self.counts[why] += 1
        twins = self.twins.pop((job.tenant, job.mark), [])
        if twins:
            self.twins[job.tenant, job.mark] = twins[1:]
            self.schedule.add(Waiting(twins[0], self.clock()))

    def _committed(self, item: Waiting, outcome: Outcome) -> None:
        result = outcome.result or {}
        if outcome.uncommitted:
            try:
                place = layout.result(result["tenant"], result["key"])
                self.store.create(place, (json.dumps(result, separators=(",", ":")) + "\n").encode())
            except FileExistsError:
                return self._known(item, None)
            except (OSError, failures.StoreError) as error:
                return self._failed(item, replace(outcome, state="failed", kind="machine", message=str(error)), False)
        self.parts.add(result)
        self.opened.index.add(result)
        self.counts["committed"] += 1
        self.counts[result["status"]] += 1
        if result["status"] != "done":
            self.tally.problem(item.job.id, result["message"])
        else:
            self.forget_photos(item.job)
        self._ended(item.job, result)
        self.tally.tell()

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
            self.forget_photos(item.job)
        self._ended(item.job, result)
        self.tally.tell()

    def _failed(self, item: Waiting, outcome: Outcome, draining: bool) -> None:
        """Try again, or give the job a result that says why not."""
        item.wasted += outcome.seconds
        kind = outcome.kind or "machine"
        if outcome.state == "died":
            item.kills[outcome.node] = item.kills.get(outcome.node, 0) + 1
            if len(item.kills) >= failures.KILLS or sum(item.kills.values()) >= failures.KILLS_HERE:
                kind = "poison"
        if kind == "user" and not outcome.key:  # its photos went away: nothing to commit under
            self.tally.problem(item.job.id, outcome.message)
            return self.left_out(item.job, "rejected")
        again = (kind == "oom" and not item.low_memory) or (kind == "machine" and item.trial < self.config.attempts)
        if draining:
            self.counts["drained"] += 1
            return
        if not again:
            return self._give_up(item, outcome, kind)
        item.trial += 1
        item.low_memory |= kind == "oom" and outcome.slots == 1  # alone it may have memory enough
        item.alone = True
        if kind == "machine":
            item.avoid.add(outcome.node)
        wait = failures.pause(item.trial - 1, self.random, self.first_pause) if kind == "machine" else 0.0
        self.tally.warn(item.job.id, f"{outcome.message} It is tried again.")
        self.schedule.add(item, wait)

    def _give_up(self, item: Waiting, outcome: Outcome, kind: Any) -> None:
        """Commit the failure, so that it is seen and not tried again until `fleet retry`."""
        self.tally.problem(item.job.id, outcome.message)
        key = outcome.key or self._key(item)
        if not key:
            return self.left_out(item.job, "failed")
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
        except (OSError, failures.StoreError):  # the store is what fails: the job stays without a result
            return self.left_out(item.job, "failed")
        self.parts.add(asdict(result))
        self.counts["committed"] += 1
        self.counts["failed"] += 1
        self._ended(job, asdict(result))
        self.tally.tell()

    def _key(self, item: Waiting) -> str:
        """A job's key, found here because no attempt came so far; "" where it cannot be."""
        try:
            made = prepare(self.task(item, 0), keys.Digests())
        except (OSError, MaquetteError):
            return ""
        made.close()
        return made.key

    def forget_photos(self, job: Job, count: int = 1) -> None:
        """Delete photos that no job needs any more, where that is wanted."""
        if not self.config.delete_photos:
            return
        place = _place(job)
        self.photos[place] -= count
        if self.photos[place] <= 0:
            try:
                photos.delete(photos.listing(json.loads(place)).files)
            except MaquetteError:  # they are gone already
                return


def _place(job: Job) -> str:
    return json.dumps(json.loads(job.body)["photos"])
