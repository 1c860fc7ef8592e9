"""What an attempt needs before it trains: photos on this machine, the key, a scratch folder that goes with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig
from . import carrying, keys, layout, photos
from .claiming import runs
from .records import Task
from .store import Store, open_store

LOW_MEMORY: dict[str, Any] = {"gradient_checkpointing": True, "gradient_accumulation": 4}


@dataclass
class Prepared:
    """A task whose photos lie here and whose key is known."""

    task: Task
    store: Store
    config: TrainConfig
    then: list[Any]
    key: str
    scratch: Path
    seconds: float
    fault: BaseException | None = None
    max_cost: float | None = None
    alike: str | None = None  # jobs of which it is the same can be trained together; None: alone

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)


def prepare(task: Task, digests: keys.Digests) -> Prepared:
    """Bring the photos here, and find the key. What goes wrong is in `fault`. Needs no device: a thread beside the
    training may do it.
    """
    began = time.monotonic()
    if task.scratch:
        Path(task.scratch).mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f"{_scratch_prefix()}{os.getpid()}-", dir=task.scratch))
    body = json.loads(task.body)
    store = open_store(task.store)
    blank = TrainConfig.parse({"photos": "photos"})
    made = Prepared(task, store, blank, body["then"], "", scratch, 0.0, max_cost=body.get("max_cost"))
    try:
        folder = photos.fetch(body["photos"], scratch)
        given = dict(body["settings"])
        for name in keys.FILES:
            if photos.is_remote(str(given.get(name, ""))):
                given[name] = str(carrying.pulled(given[name]))
        contents: dict[str, Any] = {"photos": photos.contents(folder)}
        contents |= {name: digests.of(str(given[name])) for name in keys.FILES if given.get(name) is not None}
        contents.setdefault("base", "pocket")
        config = TrainConfig.parse({**given, "photos": folder}, f"job {task.job}")
        made.key = keys.key_of(config, made.then, contents)
        run = Path(task.runs) / task.job if task.runs else scratch / "lora"
        changes = {"out": run} | (LOW_MEMORY if task.low_memory else {})
        made.config = config.model_copy(update=changes)
    except Exception as error:
        made.fault = error
    made.seconds = time.monotonic() - began
    return made


def sweep(scratch: str | None) -> None:
    """Remove what workers of this machine that were killed left in their scratch folders: it may be photos."""
    folder = Path(scratch or tempfile.gettempdir())
    for path in folder.glob(f"{_scratch_prefix()}*-*"):
        pid = path.name.removeprefix(_scratch_prefix()).partition("-")[0]
        if pid.isdigit() and path.is_dir() and not path.is_symlink() and not runs(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _scratch_prefix() -> str:
    return f"maquette-fleet-{layout.name_hash(socket.gethostname())[:8]}-"
