"""What runs need no more, how much room it takes, and its removal. Photos and whole files that a run offers stay."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..config.train import TrainConfig
from ..errors import MaquetteError
from ..events import Event, Listener
from ..methods import METHODS
from ..parsing import read_object
from ..run_folder import RunFolder


@dataclass(frozen=True)
class Removable:
    """A file or folder, what it is, and what is lost with it."""

    path: str
    bytes: int
    what: str
    lost: str


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count for nothing."""
    if path.is_symlink():
        return 0
    if not path.is_dir():
        return path.stat().st_size
    total = 0
    for place, _, names in os.walk(path):
        for name in names:
            file = os.path.join(place, name)
            total += 0 if os.path.islink(file) else os.path.getsize(file)
    return total


def removable(folders: Sequence[RunFolder], parent: Path | None, checkpoints: bool) -> list[Removable]:
    """What can go, of runs that nothing is writing into. parent: of all runs, for the encoded photos they share."""
    found: list[Removable] = []
    free = [folder for folder in folders if not folder.in_use()]
    for folder in free:
        folder.require_own()
        found += _of_run(folder, checkpoints)
    if parent is not None and len(free) == len(folders):
        cache = parent / ".cache"  # not another that $MAQUETTE_CACHE names: what else lies there is not ours
        if cache.is_dir() and not cache.is_symlink() and (size := size_of(cache)):
            found.append(Removable(str(cache), size, "encoded photos", "the next run encodes its photos again"))
    return found


def _of_run(folder: RunFolder, checkpoints: bool) -> Iterator[Removable]:
    for part in sorted(folder.path.rglob(".*.part")):
        if part.is_file() and not part.is_symlink():
            yield Removable(str(part), size_of(part), "left by a kill", "nothing")
    if folder.chosen is None or stopped_longer(folder, TrainConfig.read(folder.config)):
        return  # a run that stopped needs the rest to go on
    for place in folder.states().values():
        yield Removable(str(place), size_of(place), "state", _without_state(folder))
    if checkpoints:
        files = folder.checkpoints()
        kept = {max(files, default=0), _chosen(folder)}
        for step, file in files.items():
            if step not in kept:
                yield Removable(str(file), size_of(file), "checkpoint", "nothing can be chosen anew among what is gone")


def _without_state(folder: RunFolder) -> str:
    """What becomes of longer training: a run that dropped its state itself has noted what it can begin from."""
    if (folder.path / "state" / "finished.json").is_file():
        return "longer training of the run begins from its last file"
    method = METHODS[TrainConfig.read(folder.config).method]
    if method.product == "adapter" and not method.embedding:
        return "the run cannot be trained longer; a new one can begin from its last file"
    return "the run cannot be trained longer"


def stopped_longer(folder: RunFolder, config: TrainConfig) -> bool:
    """Whether a run that had finished was trained for longer and stopped on the way, so that its states are needed."""
    proof = folder.path / "state" / "finished.json"
    before = read_object(proof).get("step") if proof.is_file() else None
    newest = max(folder.states(), default=0)
    return type(before) is int and before < newest < (config.steps or 0)


def _chosen(folder: RunFolder) -> int:
    """The step of the chosen checkpoint, else of the last. Raises MaquetteError for a damaged record."""
    if not folder.evaluation.exists():
        return TrainConfig.read(folder.config).steps or 0
    step = read_object(folder.evaluation).get("step")
    if type(step) is not int:
        raise MaquetteError(f"{folder.evaluation} is damaged: it names no step. Nothing was removed.")
    return step


def remove(found: Sequence[Removable], folders: Sequence[RunFolder], on_event: Listener) -> None:
    """Remove each, a run's under its lock. Raises MaquetteError, and removes nothing, where one is at work now."""
    paths = [Path(one.path) for one in found]
    with ExitStack() as held:
        for folder in folders:
            if any(path.is_relative_to(folder.path) for path in paths):
                held.enter_context(folder.locked())
        for i, path in enumerate(paths):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            on_event(Event("progress", {"what": "removing", "done": i + 1, "of": len(found)}))
