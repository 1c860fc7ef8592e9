"""The process of one job: `python -m maquette.studio.worker FOLDER`. It holds the job's lock as long as it lives.

It looks for wishes (files `stop`, `pause`, `sample` in the job's folder), tells what happens as lines of events.jsonl
and how far it is in status.json, and ends in a state that a person can go on from.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from .. import files
from ..errors import MaquetteError
from ..events import Cancel, Event
from .core import fake_engine
from .job import Job, State, started

LOOK = 0.1  # seconds between looks at the wishes
OFTEN = 0.4  # seconds between two writings of status.json
_TRIES = 20


class Engine(Protocol):
    """What does a job: the stages, or the fake engine. Returns what it made, with the status of a TrainResult."""

    def __call__(self, job: Job, report: Report, cancel: Cancel) -> Mapping[str, Any]: ...


class Report:
    """Events of the stages as lines of the job's events.jsonl, and the newest figures in its status.json."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._written = 0.0
        self._facts: dict[str, Any] = {}

    def __call__(self, event: Event) -> None:
        if event.kind in ("preview", "done"):  # pictures in memory; the result, which the worker tells
            return
        data = data_of(event)
        self.job.tell(event.kind, data)
        if event.kind == "metric":
            keys = ("step", "steps", "loss", "images_per_second", "remaining_seconds")
            self._facts |= {key: data[key] for key in keys if key in data} | {"what": "training"}
        elif event.kind == "progress":
            counted = {"what": data["what"], "done": data["done"], "of": data["of"]}
            self._facts |= counted | {"remaining_seconds": data.get("remaining_seconds")}
        elif event.kind == "sample":
            self._facts["sampled"] = data["step"]
        if time.monotonic() - self._written > OFTEN:
            self.flush()

    def flush(self) -> None:
        """Write what is known into status.json."""
        self._written = time.monotonic()
        self.job.set_status(**self._facts)


def data_of(event: Event) -> dict[str, Any]:
    """An event's data for a client: files and folders by their names alone, so that no path leaves the machine."""
    data = dict(event.data)
    for key in ("path", "folder", "run", "file", "report"):
        if isinstance(data.get(key), str):
            data[key] = Path(data[key]).name
    return data


def main(folder: Path) -> int:
    """Do a job. Returns the exit code: 0 also where the job has failed and says so itself."""
    job = Job(folder)
    with _alone(job) as mine:
        if not mine or job.status()["state"] != "queued":
            return 0
        job.set_status(pid=os.getpid(), started=started(os.getpid()), message=None, remedy=None)
        job.enter("running", began=round(time.time(), 3))
        cancel, over = Cancel(), threading.Event()
        watcher = threading.Thread(target=_watch, args=(job, cancel, over), daemon=True)
        watcher.start()
        report = Report(job)
        ending: tuple[State, dict[str, Any]]
        try:
            result = dict(_engine(job)(job, report, cancel))
            ending = _ending(job, result)
        except BaseException as error:
            traceback.print_exc()
            message, remedy = explained(error)
            ending = "failed", {"message": message.replace(f"{job.path}{os.sep}", ""), "remedy": remedy}
        over.set()
        watcher.join()
        report.flush()
        _leave(job, *ending)
    return 0


def _engine(job: Job) -> Engine:
    if fake_engine():
        from . import fake

        return fake.work
    from . import work

    return work.WORK[job.spec["kind"]]


def _ending(job: Job, result: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """The state after the stages have returned, and what belongs to it."""
    if result.get("status") != "stopped":
        return "finished", {"result": result}
    paused = job.wishes("pause") and not job.wishes("stop")
    return "paused" if paused else "stopped", {"result": result}


def _leave(job: Job, state: State, values: dict[str, Any]) -> None:
    """The last word of this process: from then on the job is the server's, which may start it anew at once."""
    job.set_status(state="stopping")
    job.forget()
    ended = None if state == "paused" else round(time.time(), 3)
    job.enter(state, pid=None, started=None, ended=ended, **values)


def explained(error: BaseException) -> tuple[str, str]:
    """One sentence on what happened, and the button that helps: smaller, room, base, photos or resume."""
    text = str(error).strip()
    low = text.lower()
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full. Make room; everything that was saved before is whole.", "room"
    if isinstance(error, MemoryError) or "memory does not suffice" in low or "out of memory" in low:
        return text if isinstance(error, MaquetteError) else "The memory does not suffice for this training.", "smaller"
    if isinstance(error, MaquetteError):
        if "disk" in low:
            return text, "room"
        return text, "base" if "base" in low and ("no such" in low or "there is no" in low) else "resume"
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "The job was ended from outside.", "resume"
    return f"An unexpected fault, {type(error).__name__}, ended the job; its log says where it arose.", "resume"


def _watch(job: Job, cancel: Cancel, over: threading.Event) -> None:
    """Pass the wishes on, until the job is over."""
    while not over.wait(LOOK):
        if job.wishes("stop") or job.wishes("pause"):
            cancel.set()
        if job.wishes("sample") and job.run.config.exists():
            job.forget("sample")
            job.run.sample.touch()


@contextmanager
def _alone(job: Job) -> Iterator[bool]:
    """Hold the job's lock; False where another worker has it. A look at the lock may hold it for a moment."""
    handle = os.open(job.path / "worker.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        for _ in range(_TRIES):
            try:
                files.lock(handle)
            except OSError:
                time.sleep(LOOK)
            else:
                yield True
                return
        yield False
    finally:
        os.close(handle)


def keep_last(job: Job) -> str | None:
    """Make the last checkpoint the run's own file, where it has none. Returns its name."""
    run = job.run
    checkpoints = run.checkpoints()
    if not run.final.exists() and checkpoints:
        last = list(checkpoints.values())[-1]
        with files.open_regular(last) as source, files.atomic_writer(run.final) as target:
            shutil.copyfileobj(source, target)
    return run.final.name if run.final.exists() else None


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
