"""The queue: which job works now, which waits, and what became of the others. One job works at a time.

Workers are sessions of their own: they outlive the server, and the next server finds them by their locks.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from .job import ENDED, KINDS, WISHES, Job, Kind, State
from .names import Busy, NotFound, new_job_id, require_id
from .workers import Child, end

__all__ = ["Job", "Queue"]
LOOK = 0.5  # seconds between looks at a worker that is not this server's child
MOST_WAITING = 50
_log = logging.getLogger("maquette.studio")


class Queue:
    """The jobs of a data folder. Every method may be called from any thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self.make_room: Callable[[], bool] = lambda: True  # before a job begins; False: not yet
        # Called once for each job that has finished, without the lock: it may wait for a project's.
        self.on_finished: Callable[[Job], None] = _nothing
        self._child: Child | None = None  # the worker that this server has started

    def open(self) -> None:
        """Take up what an earlier server left: living workers are watched, dead ones have failed."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(".*"):
            if left.name.endswith((".new", ".old")):
                shutil.rmtree(left, ignore_errors=True)
        self._thread = threading.Thread(target=self._watch, name="studio queue", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching; workers go on."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()

    def jobs(self) -> list[Job]:
        """All jobs: the one at work, those that wait in their order, then the others, the newest first."""
        there = [Job(path) for path in self.folder.iterdir() if (path / "job.json").exists() and path.name[0] != "."]
        ordered = []
        for job in there:
            with suppress(NotFound):  # deleted between the two looks
                ordered.append((_order(job), job.id, job))
        return [job for _, _, job in sorted(ordered, key=lambda each: each[:2])]

    def job(self, identity: str) -> Job:
        """Raises NotFound."""
        path = self.folder / require_id(identity, "job")
        if not (path / "job.json").exists():
            raise NotFound("There is no such job; it may have been deleted.")
        return Job(path)

    def active(self) -> Job | None:
        """The job that has the machine: it works, stops or is paused."""
        return next((job for job in self.jobs() if job.state in ("running", "stopping", "paused")), None)

    def training(self) -> Job | None:
        """The job that computes now, for whom the drawing engine makes room."""
        active = self.active()
        return active if active is not None and active.state != "paused" else None

    def submit(
        self, kind: Kind, project: str, config: Mapping[str, Any], prepare: Callable[[Path], Any] | None = None,
        **spec: Any,
    ) -> Job:  # fmt: skip
        """A new job at the end of the queue. config: the keys of what it does; prepare: puts into its folder what it
        works on; spec: title, name, preset.

        Raises Busy where too many wait already.
        """
        if kind not in KINDS:
            raise MaquetteError(f"There are no jobs of the kind {kind!r}.")
        with self._lock:
            waiting = [job for job in self.jobs() if job.state == "queued"]
            if len(waiting) >= MOST_WAITING:
                raise Busy(f"{len(waiting)} jobs wait already; let some of them end first.")
            wanted = {
                "kind": kind,
                "project": project,
                "created": round(time.time(), 3),
                **spec,
                "config": dict(config),
            }
            wanted["place"] = max((job.spec.get("place", 0) for job in waiting), default=0) + 1
        job = Job.create(self.folder / new_job_id(), wanted, prepare)  # photos are cut while others use the queue
        self._wake.set()
        return job

    def move(self, identity: str, place: int) -> Job:
        """Put a waiting job at a place of the queue, counted from 0."""
        with self._lock:
            job = self._in(identity, "queued")
            waiting = [other for other in self.jobs() if other.state == "queued" and other.id != identity]
            waiting.insert(max(0, place), job)
            for at, each in enumerate(waiting, 1):
                each.change_spec(place=at)
        return job

    def pause(self, identity: str) -> Job:
        """Save and rest: the machine is free to draw with the checkpoint so far, and no other job begins."""
        with self._lock:
            job = self._in(identity, "running")
            if job.spec["kind"] != "train":
                raise Busy("Only a training can be paused; stop this job instead.")
            job.wish("pause")
        return job

    def resume(self, identity: str) -> Job:
        """Go on with a job that is paused, was stopped or has failed: before all that wait."""
        with self._lock:
            job = self._in(identity, "paused", "stopped", "failed")
            self._queue_again(job)
        return job

    def stop(self, identity: str) -> Job:
        """End a job and keep what it has made: a training's last checkpoint becomes its file."""
        with self._lock:
            job = self._in(identity, "running", "stopping", "paused", "queued")
            if job.state == "queued" and not self._is_child(job):
                job.enter("stopped", message="Stopped before it began.")
            elif job.state == "paused":
                job.wish("stop")
                self._queue_again(job, keep=("stop",))
            else:
                job.forget("pause")
                job.wish("stop")
        return job

    def sample_now(self, identity: str) -> Job:
        """Ask a training for a checkpoint and its pictures after the step at work."""
        with self._lock:
            job = self._in(identity, "running")
            job.wish("sample")
        return job

    def go_on(self, identity: str, steps: int) -> Job:
        """Train a finished or stopped job longer: `steps` steps in all, in its own run folder."""
        with self._lock:
            job = self._in(identity, "finished", "stopped")
            if job.spec["kind"] != "train":
                raise Busy("Only a training can be trained longer.")
            if steps <= (done := max(job.run.saved_steps(), default=0)):
                raise MaquetteError(f"It has trained {done} steps: give more than that, in all.")
            config = {key: value for key, value in job.spec["config"].items() if key != "epochs"}
            job.change_spec(config=config | {"steps": steps})
            self._queue_again(job)
        return job

    def delete(self, identity: str) -> None:
        """Remove a job and everything it made; one at work is ended first."""
        with self._lock:
            job = self.job(identity)
            self._end(job)
            job.delete()
        self._wake.set()

    def delete_of(self, project: str) -> None:
        """Remove all jobs of a project."""
        with self._lock:
            for job in self.jobs():
                if job.spec.get("project") == project:
                    self.delete(job.id)

    def _in(self, identity: str, *states: State) -> Job:
        """The job, where it is in one of the states. Raises Busy otherwise."""
        job = self.job(identity)
        if job.state not in states:
            raise Busy(f"This cannot be done with a job that is {job.state}.")
        return job

    def _queue_again(self, job: Job, keep: tuple[str, ...] = ()) -> None:
        job.forget(*(name for name in WISHES if name not in keep))
        job.change_spec(resumed=True, taken=False, choice=None)
        job.change_spec(place=min((j.spec.get("place", 1) for j in self.jobs() if j.state == "queued"), default=1) - 1)
        job.set_status(message=None, remedy=None, ended=None)
        job.enter("queued")
        self._wake.set()

    def _end(self, job: Job) -> None:
        """End a job's worker at once; what it has saved is whole."""
        if self._child is not None and self._is_child(job):
            self._child.kill()
            self._child = None
        end(job)

    def _watch(self) -> None:
        while not self._closed:
            try:
                self._hand_over()
                with self._lock:
                    waits = self._look()
            except Exception:  # such as a full disk: the queue outlives it, and tries again
                _log.exception("The queue could not be looked after.")
                waits = True
            self._wake.wait(LOOK if waits else None)
            self._wake.clear()

    def _hand_over(self) -> None:
        """Call on_finished for what has finished since the last look."""
        for job in self.jobs():
            with suppress(NotFound):  # deleted meanwhile
                if job.status()["state"] == "finished" and job.awaited:
                    self.on_finished(job)
                    with self._lock:
                        job.change_spec(taken=True)

    def _look(self) -> bool:
        """Mark dead workers, start the next job. Returns whether to look again soon."""
        if self._child is not None and self._child.is_over():
            self._child.require_begun()
            self._child = None
        jobs = self.jobs()
        for job in jobs:
            if job.status()["state"] in ("running", "stopping") and not job.alive() and not self._is_child(job):
                self._lost(job)
        if any(job.state in ("running", "stopping", "paused") for job in jobs) or self._child is not None:
            return True
        waiting = [job for job in jobs if job.state == "queued"]
        if waiting and self.make_room():
            self._child = Child.start(waiting[0])
        return bool(waiting)

    def _is_child(self, job: Job) -> bool:
        return self._child is not None and self._child.job.id == job.id

    def _lost(self, job: Job) -> None:
        """The worker of a running job is gone."""
        if job.wishes("stop") or job.wishes("pause"):
            job.forget("stop", "pause")
        message = "The job's process ended without a word: it was killed, or the computer was switched off."
        if job.run.config.exists():
            steps = job.run.saved_steps()
            message += f" Everything until step {steps[-1]} is saved." if steps else " It begins anew."
        job.enter("failed", message=message, remedy="resume", pid=None, started=None)


def _nothing(job: Job) -> None:
    """Of a queue whose finished jobs nobody waits for."""


def _order(job: Job) -> tuple[int, float]:
    state, spec = job.state, job.spec
    if state in ("running", "stopping", "paused"):
        return 0, spec.get("created", 0.0)
    if state == "queued":
        return 1, spec.get("place", 0)
    assert state in ENDED
    return 2, -spec.get("created", 0.0)
