"""Trainings in processes of their own, several at a time: each has its own memory, and its peak can be told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..events import Cancel, Cancelled
from ..files import write_text
from ..openmp import share_among
from ..run_folder import RunFolder
from .variants import Variant

PATIENCE = 0.2  # seconds between looks at the children


@dataclass
class Child:
    variant: Variant
    process: subprocess.Popen[bytes]
    output: Path
    complaints: Path


def train_all(
    variants: Sequence[Variant],
    folder: Path,
    jobs: int,
    on_done: Callable[[Variant, dict[str, Any]], None],
    cancel: Cancel | None = None,
) -> None:
    """Train each, or go on with it, `jobs` at a time. on_done: called with what the training said (`--json`).

    Raises MaquetteError for one that failed, Cancelled once `cancel` is set; the others then save and stop.
    """
    waiting, running = list(variants), list[Child]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_start(waiting.pop(0), folder, jobs))
            for child in [one for one in running if one.process.poll() is not None]:
                running.remove(child)
                on_done(child.variant, _result(child))
            if cancel is not None and cancel.is_set():
                raise Cancelled("Stopped; what was finished is kept. Go on with the same command.")
            time.sleep(PATIENCE if running else 0.0)
    finally:
        for child in running:
            child.process.send_signal(signal.SIGTERM)
        for child in running:
            child.process.wait()


def _start(variant: Variant, folder: Path, jobs: int) -> Child:
    assert variant.config.out is not None
    settings = folder / "settings" / f"{variant.name}.toml"
    write_text(settings, variant.config.to_toml())
    output, complaints = settings.with_suffix(".json"), settings.with_suffix(".log")
    there = RunFolder(variant.config.out).config.exists()
    words = ["--resume", str(variant.config.out)] if there else ["--config", str(settings)]
    environment = dict(os.environ)
    if jobs > 1:
        share_among(environment, jobs)
    with output.open("wb") as out, complaints.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "maquette", "train", *words, "--json"], stdout=out, stderr=err, env=environment,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    return Child(variant, process, output, complaints)


def _result(child: Child) -> dict[str, Any]:
    """What a child that ended said. Raises MaquetteError with its last words where it failed."""
    if child.process.returncode != 0:
        lines = child.complaints.read_text("utf-8", errors="replace").strip().splitlines()
        last = lines[-1].removeprefix("error: ") if lines else f"it ended with {child.process.returncode}"
        raise MaquetteError(f"{child.variant.name} could not be trained: {last}")
    record = json.loads(child.output.read_text("utf-8"))
    assert isinstance(record, dict)
    return record
