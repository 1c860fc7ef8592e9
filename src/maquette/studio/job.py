"""A job: one folder with what is wanted (job.json), how it goes (status.json), what was told (events.jsonl) and `run`.

While its worker lives, the worker alone writes status and events; the server leaves wishes, which are empty files.
A worker holds `worker.lock` as long as it lives, however it ends, so that nobody takes a dead one for a running one.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from .. import files
from ..errors import MaquetteError
from ..files import write_json
from ..parsing import read_object
from ..run_folder import RunFolder
from ..shown import finite_json
from .names import NotFound

State = Literal["queued", "running", "paused", "stopping", "finished", "failed", "stopped"]
Kind = Literal["train", "caption", "evaluate", "merge"]
KINDS: tuple[Kind, ...] = ("train", "caption", "evaluate", "merge")
WISHES = ("stop", "pause", "sample")
ENDED: tuple[State, ...] = ("finished", "failed", "stopped")
MOST_RECORDS = 2_000  # that are remembered
SETTLED = 100_000_000  # nanoseconds: longer than a tick of the clock by which a file system dates its files


class Job:
    """A job's folder. Nothing is kept in memory: two servers, or a server and a worker, see the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.name

    @classmethod
    def create(cls, path: Path, spec: Mapping[str, Any], prepare: Callable[[Path], Any] | None = None) -> Job:
        """A new job in the state queued. The folder appears whole. prepare: puts into it what the job works on."""
        making = path.with_name(f".{path.name}.new")
        making.mkdir(parents=True)
        try:
            if prepare is not None:
                prepare(making)
            write_json(making / "job.json", dict(spec))
            write_json(making / "status.json", {"state": "queued"})
            os.replace(making, path)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        job = cls(path)
        job.tell("state", {"state": "queued"})
        return job

    @property
    def spec(self) -> dict[str, Any]:
        """kind, project, title, preset, config, created, place. Raises NotFound once the job was deleted."""
        try:
            return _record(self.path / "job.json")
        except MaquetteError as error:
            if self.path.exists():
                raise
            raise NotFound("There is no such job; it may have been deleted.") from error

    def change_spec(self, **values: Any) -> None:
        write_json(self.path / "job.json", self.spec | values)

    @property
    def run(self) -> RunFolder:
        """The run folder of its training; its name is that of the file."""
        return RunFolder(self.path / "run" / str(self.spec.get("name", "lora")))

    @property
    def config(self) -> dict[str, Any]:
        """The keys of what it does, with its own folders in place."""
        spec = self.spec
        config = dict(spec["config"])
        if (self.path / "photos").is_dir():
            config["photos"] = str(self.path / "photos")
        return config

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def end_of_log(self, most: int) -> str:
        """The last `most` bytes of what its process printed, with no folder of this computer; "" without."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - most))
                return file.read().decode("utf-8", "replace").replace(str(self.path), "…")
        except OSError:
            return ""

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    def status(self) -> dict[str, Any]:
        """What status.json says; a job whose worker died without a word has failed."""
        try:
            status = _record(self.path / "status.json")
        except MaquetteError:
            status = {"state": "failed", "message": "The status of this job cannot be read.", "remedy": "resume"}
        return status

    @property
    def state(self) -> State:
        state: State = self.status()["state"]
        if state == "running" and (self.wishes("stop") or self.wishes("pause")):
            return "stopping"
        if state == "finished" and self.awaited:
            return "stopping"
        return state

    @property
    def awaited(self) -> bool:
        """Whether it has made what the server has not taken yet: captions, or another file for a training."""
        spec = self.spec
        if spec["kind"] == "evaluate":
            return spec.get("taken") is False
        return spec["kind"] == "caption" and not spec.get("taken")

    def set_status(self, **values: Any) -> None:
        """Change some keys of the status; None removes a key."""
        merged = self.status() | values
        write_json(self.path / "status.json", {key: value for key, value in merged.items() if value is not None})

    def enter(self, state: State, **values: Any) -> None:
        """Tell a new state as an event, and change to it: a worker's last word."""
        self.tell("state", {"state": state, **{k: v for k, v in values.items() if k in ("message", "remedy")}})
        self.set_status(state=state, changed=round(time.time(), 3), **values)

    def wish(self, name: str) -> None:
        """Ask the worker for something: stop, pause or sample."""
        (self.path / name).touch()

    def wishes(self, name: str) -> bool:
        return (self.path / name).exists()

    def forget(self, *names: str) -> None:
        for name in names or WISHES:
            (self.path / name).unlink(missing_ok=True)

    def alive(self) -> bool:
        """Whether its worker lives: whether somebody holds its lock."""
        path = self.path / "worker.lock"
        try:
            with path.open("r+b") as file:
                files.lock(file.fileno())
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def tell(self, kind: str, data: Mapping[str, Any]) -> None:
        """One more line of events.jsonl."""
        line = {"time": round(time.time(), 3), "kind": kind, "data": finite_json(dict(data))}
        with self.events.open("a+b", buffering=0) as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a kill cut the last line off
                    file.write(b"\n")
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

    def events_after(self, number: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Every whole event after the first `number` lines, with the number of its line, counted from 1."""
        yield from ((at, event) for at, event in Reader(self).news() if at > number)

    def delete(self) -> None:
        """Remove the folder; what remains after a kill in between begins with a dot, and goes at the next start."""
        away = self.path.with_name(f".{self.path.name}.old")
        os.replace(self.path, away)
        shutil.rmtree(away)


class Reader:
    """Reads a job's events as they come, each line once."""

    def __init__(self, job: Job) -> None:
        self._path, self._offset, self._number = job.events, 0, 0

    def news(self) -> list[tuple[int, dict[str, Any]]]:
        """The whole events since the last call, with the numbers of their lines, counted from 1."""
        found = []
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    self._number += 1
                    if (event := _event(line)) is not None:
                        found.append((self._number, event))
        except FileNotFoundError:
            return []
        return found


# Records as they were read last: a queue of many jobs is looked at twice a second.
_records: dict[Path, tuple[tuple[int, int, int], dict[str, Any]]] = {}


def _record(path: Path) -> dict[str, Any]:
    """A job's file, read once for each time that it is written. Raises MaquetteError where it is missing or damaged."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise MaquetteError(f"{path.name} is missing.") from error
    stamp, kept = (state.st_ino, state.st_mtime_ns, state.st_size), _records.get(path)
    settled = time.time_ns() - state.st_mtime_ns > SETTLED  # within one tick two writings may look alike
    if kept is None or kept[0] != stamp or not settled:
        if len(_records) >= MOST_RECORDS:
            _records.clear()
        kept = _records[path] = stamp, read_object(path)
    return dict(kept[1])


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "kind" in event else None


def started(pid: int) -> str | None:
    """When a process was started, as the system counts, so that a number that was given anew is known; None where the
    system does not tell.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()[19]
