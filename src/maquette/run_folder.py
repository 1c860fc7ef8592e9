"""A run folder: its paths, its lock and its metrics.

What lies in a run folder may come from a stranger or a broken disk: it is read with a bound on its size, its types are
checked, and nothing outside of the folder is ever read, written or removed through it.
"""

from __future__ import annotations

import io
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import files, limits, parsing
from .errors import MaquetteError
from .events import Listener
from .files import slug, write_text
from .shown import finite_json

OWN_FOLDERS = ("checkpoints", "state", "samples")  # in which a run writes and removes files
TRACKERS = ("tensorboard", "wandb")  # folders of other programs
HUB = "hub"  # folder in which `maquette push` writes


class RunFolder:
    """runs/NAME and what lies in it. `create` for a new run, `open` for one to go on with; both hold no lock yet."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """A new folder. Raises MaquetteError when anything lies there already: a run is never overwritten."""
        cls.refuse_taken(path)
        return cls(_made(Path(path)))

    @staticmethod
    def refuse_taken(path: str | Path) -> None:
        """Raise MaquetteError when a new run cannot go there."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise MaquetteError(f"{path} is a file; give the run another folder with --out.")
        above = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
        if not above.is_dir() or not os.access(above, os.W_OK):
            fault = "cannot be written" if above.is_dir() else "is a file"
            raise MaquetteError(f"{above} {fault}, so {path} cannot be made; give the run another folder with --out.")
        if path.is_dir() and any(not _forgettable(entry) for entry in path.iterdir()):
            if (path / "run.toml").exists():
                raise MaquetteError(
                    f"{path} already holds a run; go on with it (maquette train --resume {path}) "
                    "or choose another --out."
                )
            raise MaquetteError(f"{path} is not empty; choose another --out for the run.")

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The folder of an earlier run. Raises MaquetteError when there is none."""
        folder = cls(path)
        if not folder.path.is_dir() or not any((folder.path / name).exists() for name in ("run.toml", *OWN_FOLDERS)):
            raise MaquetteError(f"{path} is not a run folder: it has no run.toml.")
        folder.require_own()
        if not folder.config.exists():
            raise MaquetteError(f"{path} has no run.toml, which says what is trained: put it back, or start a new run.")
        return folder

    def require_own(self) -> None:
        """Raise MaquetteError for a link, pipe or device among what a run writes: it would lead out of the folder."""
        for entry in self._entries():
            mode = entry.lstat().st_mode
            expected = entry.parent == self.path and entry.name in (*OWN_FOLDERS, *TRACKERS, HUB)
            if stat.S_ISLNK(mode):
                fault = "is a link, and a run keeps to its own folder: put what it points to in its place"
            elif expected != stat.S_ISDIR(mode) and (expected or entry.parent == self.path):
                fault = "is a file, not a folder" if expected else "is a folder, not a file"
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                fault = "is no plain file"
            elif entry.parent == self.path / "state" and entry.name[0].isdigit() and not _is_number(entry.name):
                fault = "is no state that a run writes: move it out of the folder"
            else:
                continue
            raise MaquetteError(f"{entry} {fault}. Nothing was changed; mend it, or start a new run.")

    def _entries(self) -> Iterator[Path]:
        """The files and folders that a run reads, replaces or removes, links not followed."""
        stems = {self.name, *([self.chosen.stem] if self.chosen else [])}
        final = [stem + suffix for stem in sorted(stems) for suffix in (".safetensors", ".json", ".png")]
        records = [
            "run.toml",
            "dataset.json",
            "computer.json",
            "metrics.jsonl",
            "events.jsonl",
            "evaluation.json",
            "measured.json",
        ]
        texts = [*records, "report.html", "wandb.id", "stop", "sample", ".lock"]
        for name in [*texts, *final, *OWN_FOLDERS, *TRACKERS, HUB]:
            entry = self.path / name
            if entry.is_symlink() or entry.exists():
                yield entry
        for name in (*OWN_FOLDERS, HUB):
            if (self.path / name).is_dir():
                yield from (self.path / name).rglob("*")

    @classmethod
    def free_path(cls, parent: str | Path, name: str) -> Path:
        """parent/NAME, or parent/NAME-2, -3 … where earlier runs lie."""
        path, number = Path(parent) / slug(name), 1
        while path.exists():
            number += 1
            path = Path(parent) / f"{slug(name)}-{number}"
        return path

    @property
    def name(self) -> str:
        """Stem of the files that the run makes."""
        return slug(self.path.resolve().name)

    @property
    def config(self) -> Path:
        return self.path / "run.toml"

    @property
    def dataset(self) -> Path:
        return self.path / "dataset.json"

    @property
    def computer(self) -> Path:
        return self.path / "computer.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        """What was told while the run worked, a line of JSON for each event: time, kind, data."""
        return self.path / "events.jsonl"

    @property
    def stop(self) -> Path:
        """Whoever makes this file, of any content, ends the training after the step at work, with everything saved."""
        return self.path / "stop"

    @property
    def sample(self) -> Path:
        """Whoever makes this file gets a checkpoint and its sample pictures after the step at work, which goes on."""
        return self.path / "sample"

    @property
    def evaluation(self) -> Path:
        """The verdict on the checkpoints, and every figure behind it."""
        return self.path / "evaluation.json"

    @property
    def measured(self) -> Path:
        """What a training that watches itself saw of its checkpoints."""
        return self.path / "measured.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def final(self) -> Path:
        """Where the chosen checkpoint is written."""
        return self.path / f"{self.name}.safetensors"

    @property
    def chosen(self) -> Path | None:
        """The chosen checkpoint, also under a name that the folder had before; None while there is none."""
        stems = [file.stem.rpartition("-")[0] for file in reversed(self.checkpoints().values())]
        places = [self.final, *(self.path / f"{stem}.safetensors" for stem in stems)]
        return next((place for place in places if place.exists()), None)

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"{self.name}-{step:06d}.safetensors"

    def checkpoints(self) -> dict[int, Path]:
        """Step -> file of every checkpoint, in order."""
        there = [file for file in self.path.glob("checkpoints/*.safetensors") if file.is_file()]
        found = {int(m[1]): f for f in there if (m := re.search(r"-([0-9]{6,18})\.safetensors$", f.name))}
        return dict(sorted(found.items()))

    def samples(self, step: int) -> Path:
        return self.path / "samples" / f"{step:06d}"

    def sample_folders(self) -> dict[int, Path]:
        """Step -> folder of the sample pictures, in order; 0 is the base."""
        return _numbered(self.path / "samples")

    def state(self, step: int) -> Path:
        return self.path / "state" / f"{step:06d}"

    def states(self) -> dict[int, Path]:
        """Step -> folder of every state, whole or not, in order."""
        return _numbered(self.path / "state")

    def saved_steps(self) -> list[int]:
        """Steps after which something was saved, as what lies here tells; a state counts once its manifest is there."""
        states = [step for step, folder in self.states().items() if (folder / "manifest.json").exists()]
        return sorted({*self.checkpoints(), *states, *(step for step in self.sample_folders() if step)})

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the operating system lets go of it however the process ends.

        Raises MaquetteError when another process holds it.
        """
        path = _made(self.path) / ".lock"
        flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # Windows has neither
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except OSError as error:
            raise MaquetteError(
                f"The run folder cannot be locked: {path}: {error.strerror or error}. Copy the folder to where you may "
                "write, and name the copy."
            ) from error
        try:
            try:
                files.lock(file)
            except OSError as error:
                raise MaquetteError(
                    f"Another run is writing into {self.path}; wait for it or choose another --out."
                ) from error
            yield
        finally:
            os.close(file)

    def in_use(self) -> bool:
        """Whether a process holds the folder now. Writes nothing."""
        path = self.path / ".lock"
        if path.is_symlink() or not path.is_file():
            return False
        try:
            file = path.open("r+b")
        except OSError:  # not ours to write, as a folder that is read-only
            return self._held_by_another(path)
        with file:
            try:
                files.lock(file.fileno())
            except OSError:
                return True
        return False

    @staticmethod
    def _held_by_another(path: Path) -> bool:
        """The same of a lock that can only be read, if at all: not every file system tells by such a one."""
        try:
            file = path.open("rb")
        except OSError:
            return False
        with file:
            try:
                files.lock(file.fileno())
            except OSError as error:
                return isinstance(error, BlockingIOError | PermissionError)  # the latter on Windows
        return False

    def clear_unfinished(self) -> None:
        """Remove the temporary files that a kill or power cut left; nothing reads them."""
        for entry in self.path.rglob(".*.part"):
            if entry.is_file():
                entry.unlink(missing_ok=True)

    def append_metric(self, values: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    @contextmanager
    def recording(self) -> Iterator[Listener]:
        """Write events to events.jsonl, and at an error or an interruption its sentence as the kind "failed"."""
        with self.events.open("a+b", buffering=0) as file:
            if file.tell() and not _ends_a_line(file):  # a kill cut the last line off
                file.write(b"\n")

            def write(kind: str, data: Mapping[str, Any]) -> None:
                line = {"time": round(time.time(), 3), "kind": kind, "data": finite_json(dict(data))}
                file.write(json.dumps(line).encode() + b"\n")

            try:
                yield lambda event: write(event.kind, event.data)
            except BaseException as error:
                write("failed", {"message": str(error) or type(error).__name__})
                raise

    def read_photos(self) -> list[dict[str, Any]]:
        """The photos that dataset.json lists, [] without one. Raises MaquetteError where it is damaged."""
        photos = parsing.read_object(self.dataset).get("photos", []) if self.dataset.exists() else []
        if not isinstance(photos, list) or not all(isinstance(photo, dict) for photo in photos):
            raise MaquetteError(f"{self.dataset} is damaged: its 'photos' are not as a run writes them.")
        return photos

    def read_evaluation(self) -> dict[str, Any]:
        """evaluation.json, {} without one. Raises MaquetteError for other types of its step, weight, reasons."""
        found = parsing.read_object(self.evaluation) if self.evaluation.exists() else {}
        kinds = {"step": int, "weight": int | float, "reasons": list}
        if wrong := [key for key, kind in kinds.items() if key in found and not isinstance(found[key], kind)]:
            raise MaquetteError(f"{self.evaluation} is damaged in {wrong[0]!r}: choose again with maquette evaluate.")
        return found

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines that are whole: a `step` from 1 on, a `loss`, numbers only. What a kill cut off is passed over."""
        if not self.metrics.exists():
            return []
        raw = files.read_bytes(self.metrics, limits.METRICS_BYTES, "such file of a run")
        return [line for part in raw.splitlines() if (line := _metric(part)) is not None]

    def keep_metrics_until(self, step: int) -> None:
        """Forget the lines of later steps: a resumed run writes them again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def _ends_a_line(file: io.FileIO) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _metric(raw: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl, or None for what no run writes."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not all(_number(value) for value in line.values()):
        return None
    return line if "loss" in line and isinstance(line.get("step"), int) and line["step"] > 0 else None


def _number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 1 << 60)


def _is_number(name: str) -> bool:
    return re.fullmatch(r"[0-9]{6,18}", name) is not None


def _numbered(parent: Path) -> dict[int, Path]:
    """Number -> sub-folder, in order; whatever is called otherwise is not the run's."""
    names = [entry for entry in parent.glob("[0-9]*") if _is_number(entry.name)]
    return {int(entry.name): entry for entry in sorted(names, key=lambda e: int(e.name)) if entry.is_dir()}


def _forgettable(entry: Path) -> bool:
    """What a run that was killed before it began leaves behind."""
    plain = entry.is_file() and not entry.is_symlink()
    return plain and (entry.name in (".lock", "dataset.json", "computer.json") or _unfinished(entry))


def _unfinished(entry: Path) -> bool:
    return entry.name.startswith(".") and entry.name.endswith(".part")


def _made(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MaquetteError(f"The folder {path} cannot be made: {error.strerror or error}.") from error
    return path
