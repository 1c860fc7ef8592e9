"""`maquette runs`: which runs there are, how two differ, and what they need no more. Loads no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..config.runs import RunsConfig
from ..config.train import TrainConfig
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore, until
from ..run_folder import RunFolder
from . import runs_clean, runs_compare


@dataclass
class RunEntry:
    """A run in the list. problem: why it cannot be read, with nothing else known then."""

    run: str
    subject: str = ""
    base: str = ""
    method: str = ""
    state: str = ""  # finished, running, or where it stopped
    verdict: str = ""
    steps: int = 0
    photos: int = 0
    size_bytes: int = 0
    problem: str = ""


@dataclass
class RunsResult:
    """What was found. differences: of two runs, key, and the value in each. freed: what `clean` removes or removed."""

    runs: list[RunEntry] = field(default_factory=list)
    differences: list[tuple[str, str, str]] = field(default_factory=list)
    picture: str | None = None
    freed: list[runs_clean.Removable] = field(default_factory=list)
    freed_bytes: int = 0
    removed: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: RunsConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> RunsResult:
    """List the runs, compare the two that are named, or clean. Raises MaquetteError for a folder that is no run."""
    on_event = until(cancel, on_event)
    folders = [RunFolder.open(path) for path in config.runs] or list(_found(config.folder))
    result = RunsResult([entry(folder) for folder in folders])
    if config.clean:
        result.freed = runs_clean.removable(folders, config.folder if not config.runs else None, config.checkpoints)
        result.freed_bytes = sum(one.bytes for one in result.freed)
        if config.yes:
            runs_clean.remove(result.freed, folders, on_event)
            result.removed = True
    elif len(config.runs) == 2:
        one, other = folders
        result.differences = runs_compare.differences(one, other)
        target = config.out or config.folder / f"{one.name}-beside-{other.name}.png"
        picture = runs_compare.side_by_side(one, other, target)
        result.picture = None if picture is None else str(picture)
    on_event(Event("done", result.to_json()))
    return result


def _found(folder: Path) -> Iterator[RunFolder]:
    """The run folders in a folder, by name."""
    if not folder.is_dir():
        raise MaquetteError(f"There is no folder {folder}; name where the runs lie with --folder.")
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink() and (path / "run.toml").exists():
            yield RunFolder(path)


def entry(folder: RunFolder) -> RunEntry:
    """What the list says of a run."""
    made = RunEntry(str(folder.path), size_bytes=runs_clean.size_of(folder.path))
    try:
        config = TrainConfig.read(folder.config)
        lines = folder.read_metrics()
        evaluation, photos = folder.read_evaluation(), folder.read_photos()
        finished = folder.chosen is not None and not runs_clean.stopped_longer(folder, config)
    except MaquetteError as error:
        made.problem = str(error)
        return made
    step = lines[-1]["step"] if lines else 0
    made.subject, made.method, made.steps = config.subject or "", config.method, step
    made.base = Path(config.base).name
    made.photos = sum(photo.get("role") == "instance" for photo in photos)
    if folder.in_use():
        made.state = f"running, step {step} of {config.steps}"
    elif finished:
        made.state = "finished"
    else:
        made.state = f"stopped at step {step} of {config.steps}"
    made.verdict = _verdict(evaluation, config)
    return made


def _verdict(evaluation: dict[str, Any], config: TrainConfig) -> str:
    """ "step 400 at 0.85", and whether even that is overtrained."""
    step, weight, over = evaluation.get("step"), evaluation.get("weight"), evaluation.get("overtrained")
    if type(step) is int and isinstance(weight, int | float):
        return f"step {step} at {weight:g}" + (
            f", {', '.join(map(str, over))}" if isinstance(over, list) and over else ""
        )
    if config.preferred_weight is not None:
        return f"step {config.steps} at {config.preferred_weight:g}, from a first pass"
    return ""
