"""What goes between a worker's disk and the store: results, states to go on from, bases."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from .. import files
from ..config import TrainConfig
from ..errors import MaquetteError
from ..events import Event
from ..run_folder import RunFolder
from . import layout
from .store import Store, open_store

if TYPE_CHECKING:
    from .trainer import Trained

LONG = 120.0  # seconds of training from which a state is worth its upload (Young's interval: docs/fleet.md)
STATE = "state"
WHOLE = "whole.json"  # last object of a state
KEPT = ("*.safetensors", "metrics.jsonl", "samples/**/*.png", "pictures/**/*")
PLACES = ("photos", "out", "base", "vae", "reg", "from_lora", "device")
_RECORDS = ("run.toml", "dataset.json", "computer.json", "metrics.jsonl", "measured.json")


def run_of(config: TrainConfig) -> Path:
    """The run folder of an attempt."""
    assert config.out is not None
    return config.out


def upload(config: TrainConfig, trained: Trained, store: Store, folder: str) -> tuple[dict[str, str], int]:
    """Put the LoRA, its side-car, curve and pictures below the attempt. Returns sha256 by name, and bytes in all.

    Neither the report nor the run's own records: they name photos and paths.
    """
    run = run_of(config)
    chosen: dict[str, Path] = {}
    if trained.file is not None:
        chosen[Path(trained.file).name] = Path(trained.file)
    for pattern in KEPT:
        for path in sorted(run.glob(pattern)):
            if path.is_file() and not path.name.startswith("."):
                chosen.setdefault(path.relative_to(run).as_posix(), path)
    digests: dict[str, str] = {}
    for name, path in chosen.items():
        digests[name] = layout.file_hash(path)
        store.upload(path, f"{folder}/{name}")
    return digests, sum(path.stat().st_size for path in chosen.values())


class Keeper:
    """Uploads the newest state of a training that has lasted long, each time a checkpoint was saved."""

    def __init__(self, store: Store, folder: str, config: TrainConfig) -> None:
        self.store, self.folder, self.run = store, f"{folder}/{STATE}", RunFolder(run_of(config))
        self.began = self.last = time.monotonic()
        self.step = 0

    def listen(self, event: Event) -> None:
        if event.kind == "saved" and time.monotonic() - self.last >= LONG:
            self.keep()

    def keep(self, force: bool = False) -> None:
        """Upload the state unless the training is so short that beginning again costs less."""
        if time.monotonic() - self.began < LONG or (not force and time.monotonic() - self.last < LONG):
            return
        whole = [step for step, place in self.run.states().items() if (place / "manifest.json").exists()]
        if not whole or max(whole) <= self.step:
            return
        self.last, self.step = time.monotonic(), max(whole)
        place = f"{self.folder}/{self.step:06d}"
        names = [name for name in _RECORDS if (self.run.path / name).exists()]
        paths = [self.run.path / name for name in names]
        paths += [path for path in self.run.state(self.step).rglob("*") if path.is_file()]
        paths += list(self.run.checkpoints().values())
        for path in paths:
            if path == self.run.config:
                self.store.write(f"{place}/{path.name}", _without_places(path).encode())
            else:
                self.store.upload(path, f"{place}/{path.relative_to(self.run.path).as_posix()}")
        record = {"step": self.step, "files": [path.relative_to(self.run.path).as_posix() for path in paths]}
        self.store.write(f"{place}/{WHOLE}", json.dumps(record).encode())


def newest_state(store: Store, tenant: str, key: str) -> str | None:
    """Where the furthest whole state of any attempt at a job lies, or None."""
    found: dict[int, str] = {}
    for attempt in store.folders(layout.attempts(tenant, key)):
        place = f"{layout.attempts(tenant, key)}/{attempt}/{STATE}"
        for step in store.folders(place):
            if step.isdigit() and store.exists(f"{place}/{step}/{WHOLE}"):
                found[int(step)] = f"{place}/{step}"
    return found[max(found)] if found else None


def restore(store: Store, state: str, config: TrainConfig) -> None:
    """Put a state into the run folder, with the photos and places of this machine."""
    run = run_of(config)
    for name in json.loads(store.read(f"{state}/{WHOLE}"))["files"]:
        target = run / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise MaquetteError(f"The state {state} names a file outside of it: {name!r}.")
        store.download(f"{state}/{name}", target)
    written = TrainConfig.read(run / "run.toml")
    places = {key: getattr(config, key) for key in PLACES}
    files.write_text(run / "run.toml", written.model_copy(update=places).to_toml())


def _without_places(file: Path) -> str:
    """run.toml without the paths of this machine; `restore` puts those of the next one there."""
    written = TrainConfig.read(file)
    names = {key: Path(key) for key in ("photos", "out", "reg", "from_lora") if getattr(written, key) is not None}
    named = {key: Path(place).name for key in ("base", "vae") if (place := getattr(written, key)) is not None}
    return written.model_copy(update=names | named).to_toml()


def pulled(address: str) -> Path:
    """A base that lies in an object store, on this machine's disk: fetched once per machine, under a lock.

    Raises MaquetteError where nothing is.
    """
    parent, _, name = address.rstrip("/").rpartition("/")
    store = open_store(parent)
    found = [entry for entry in store.files(name)] or [entry for entry in store.files("") if entry.name == name]
    if not found:
        raise MaquetteError(f"There is no base {address}.")
    mark = hashlib.sha256(json.dumps([address, found]).encode()).hexdigest()[:24]
    place = files.cache_of_user() / "bases" / mark
    if (place / "whole").exists():
        return place / name
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as handle:
        _wait_for_lock(handle.fileno())
        if not (place / "whole").exists():
            for entry in found:
                part = place / f"{entry.name}.part"
                store.download(entry.name, part)
                part.replace(place / entry.name)
            (place / "whole").touch()
    return place / name


def _wait_for_lock(handle: int) -> None:
    while True:
        try:
            return files.lock(handle)
        except OSError:
            time.sleep(0.5)  # another worker of this machine is fetching it
