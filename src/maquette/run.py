"""A run folder: its paths, its lock, files that appear whole or not at all, and the events that a stage emits."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .errors import MaquetteError

EventKind = Literal["progress", "metric", "sample", "saved", "warning", "done"]


@dataclass(frozen=True)
class Event:
    """Something a stage tells its caller. `data` is JSON-ready; "warning" has `message`, "saved" has `path`."""

    kind: EventKind
    data: dict[str, Any] = field(default_factory=dict)


Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The listener of a caller that wants none."""


def slug(text: str) -> str:
    """A file name without what prompts give a meaning (`:`, `,`, `>`, `=`, space): "zkw robot" -> "zkw-robot"."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.") or "run"


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
        if not folder.config.is_file():
            raise MaquetteError(f"{path} is not a run folder: it has no run.toml.")
        return folder

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
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def final(self) -> Path:
        """The chosen checkpoint."""
        return self.path / f"{self.name}.safetensors"

    def checkpoint(self, step: int) -> Path:
        return self.path / "checkpoints" / f"{self.name}-{step:06d}.safetensors"

    def checkpoints(self) -> dict[int, Path]:
        """Step -> file of every checkpoint, in order."""
        files = self.path.glob("checkpoints/*.safetensors")
        found = {int(m[1]): f for f in files if (m := re.search(r"-(\d{6,})\.safetensors$", f.name))}
        return dict(sorted(found.items()))

    def samples(self, step: int) -> Path:
        return self.path / "samples" / f"{step:06d}"

    def state(self, step: int) -> Path:
        return self.path / "state" / f"{step:06d}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder; the operating system lets go of it however the process ends.

        Raises MaquetteError when another process holds it.
        """
        import fcntl

        with (_made(self.path) / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise MaquetteError(
                    f"Another run is writing into {self.path}; wait for it or choose another --out."
                ) from error
            yield

    def clear_unfinished(self) -> None:
        """Remove the temporary files that a kill or power cut left; nothing reads them."""
        for entry in self.path.rglob(".*.part"):
            entry.unlink(missing_ok=True)

    def append_metric(self, values: dict[str, Any]) -> None:
        """One more line of metrics.jsonl."""
        with self.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines; a line cut off by a kill is passed over."""
        if not self.metrics.exists():
            return []
        lines = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def keep_metrics_until(self, step: int) -> None:
        """Forget the lines of later steps: a resumed run writes them again."""
        kept = [line for line in self.read_metrics() if line.get("step", 0) <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def _forgettable(entry: Path) -> bool:
    """What a run that was killed before it began leaves behind."""
    return entry.name in (".lock", "dataset.json", "computer.json") or _unfinished(entry)


def _unfinished(entry: Path) -> bool:
    return entry.name.startswith(".") and entry.name.endswith(".part")


def write_text(path: Path, text: str) -> None:
    """Write a text file that appears whole or not at all."""
    from .formats.safetensors import atomic_writer

    with atomic_writer(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON, readable and atomic."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, sort_keys=False) + "\n")


def _made(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MaquetteError(f"The folder {path} cannot be made: {error.strerror or error}.") from error
    return path
