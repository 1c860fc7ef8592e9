"""Run folders: one that a training left, with a file of it changed, missing, special or from elsewhere."""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from . import nasty

_kept = tempfile.TemporaryDirectory(prefix="fuzz-run-")  # removed when the process ends


def prepare() -> None:
    """Train the run that is spoilt."""
    _model()


@cache
def _model() -> Path:
    """A run of two steps, trained once."""
    from PIL import Image

    from maquette.config import TrainConfig
    from maquette.stages import train

    place = Path(_kept.name)
    (place / "photos").mkdir()
    for i in range(2):
        Image.effect_noise((64, 64), 80).convert("RGB").save(place / "photos" / f"{i}.png")
    config = {"photos": place / "photos", "subject": "zkw robot", "steps": 2, "rank": 1, "out": place / "run"}
    train.run(
        TrainConfig.parse(config | {"sample_prompts": ["a robot"], "sample_steps": 1, "save_every_steps": 1}, "fuzz")
    )
    return place / "run"


def run_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    run = folder / "run"
    shutil.copytree(_model(), run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    for path in rng.sample(files, rng.randint(1, 2)):
        _spoil(rng, path, run)
    step = rng.choice((1, 2))

    def read() -> None:
        from maquette.config import TrainConfig
        from maquette.config.runs import CommandConfig
        from maquette.parsing import read_object
        from maquette.report import run_page as report
        from maquette.run_folder import RunFolder
        from maquette.stages import command
        from maquette.training import state

        opened = RunFolder.open(run)
        opened.require_own()
        TrainConfig.read(opened.config)
        opened.read_metrics()
        opened.checkpoints()
        opened.saved_steps()
        found = state.latest(opened)
        if found:
            state.told_run(found[1])
        read_object(opened.computer)
        opened.keep_metrics_until(step)
        command.run(CommandConfig.parse({"run": run, "program": rng.choice(("kohya", "diffusers"))}))
        report.write(opened)

    return read


def _spoil(rng: random.Random, path: Path, run: Path) -> None:
    """Change one file by its structure where it is JSON, by its bytes elsewhere, or put something else in its place."""
    act = rng.random()
    if not path.is_file():  # it went with another file
        return
    if act < 0.5 and path.suffix in (".json", ".jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines() if path.suffix == ".jsonl" else [path.read_text("utf-8")]
        thing: list[Any] = [json.loads(line) for line in lines]
        at = rng.randrange(len(thing))
        thing[at] = nasty.changed(rng, thing[at])
        path.write_text("\n".join(map(nasty.as_json, thing)), encoding="utf-8", errors="surrogatepass")
    elif act < 0.6 and path.suffix == ".toml":
        lines = path.read_text(encoding="utf-8").splitlines()
        lines[rng.randrange(len(lines))] = f"{rng.choice(lines).split(' ')[0]} = {nasty.as_json(nasty.value(rng))}"
        path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    elif act < 0.85:
        path.write_bytes(nasty.damaged(rng, path.read_bytes()))
    else:
        path.unlink()
        other = rng.randrange(5)
        if other == 0:
            path.mkdir()
        elif other == 1:
            os.mkfifo(path)
        elif other == 2:
            path.symlink_to(rng.choice((run, path, Path("/dev/zero"), Path("/nowhere"))))
        elif other == 3:
            path.write_bytes(b"")
