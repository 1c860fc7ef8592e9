"""What `maquette evaluate` sees of the checkpoints: photos, base and files, never the judge or fresh scenes.

Beside it what a program with an encoder sees: pocket's image tower on the same drawn pictures, a rival of the rule.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.choice import plan
from benchmarks.choice.candidates import Run
from benchmarks.choice.drawing import Room
from benchmarks.choice.subjects import Subject, to_pixels
from benchmarks.choice.training import GROUNDS
from benchmarks.choice.truth import keep, label
from maquette import evaluation
from maquette.evaluation.example import Example
from maquette.evaluation.measures import examine
from maquette.evaluation.panel import STANDARD, Panel, build_panel
from maquette.evaluation.rows import answers
from maquette.evaluation.tuned import Tuned, tuned

HELD = {"captioned": 3, "uncaptioned": 3, "five": 2}  # photos beside those that were trained on
PANEL_SEED = 3
USUAL, OTHER_WEIGHTS = (0.5, 0.7, 1.0), 2  # other weights than these are measured at every so many-th checkpoint


def measured_cells() -> list[tuple[int, list[float]]]:
    """Steps and the weights measured of each: the usual ones at every checkpoint, the others at every second."""
    every = sorted(plan.WEIGHTS)
    return [(step, every if i % OTHER_WEIGHTS else list(USUAL)) for i, step in enumerate(plan.CHECKPOINTS)]


def photos_of(run: Run, subject: Subject) -> list[Example]:
    """The photos that the run learned, and a few more of the same kind that it did not."""
    folder, data = run.folder / "photos", run.told["data"]
    found = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            pixels = to_pixels([image])[0] * 2 - 1
        text = path.with_suffix(".txt")
        caption = text.read_text().strip() if text.exists() else f"a photo of {subject.prompt}"
        found.append(Example(pixels, caption, path.name))
    rng = np.random.default_rng([18, *subject.name.encode(), *data.encode()])
    for i in range(HELD[data]):
        like = found[i % len(found)]  # the photo's background and words
        colour = subject.seen[i % GROUNDS[data]]
        pixels = to_pixels([subject.scene(rng, colour, len(found) + i)])[0] * 2 - 1
        found.append(Example(pixels, like.caption, f"held-{i}", held=True))
    return found


def tower_likeness(room: Room, panel: Panel, drawn: Tensor) -> list[float]:
    """Mean cosine of each drawn picture to the photos that were trained on, in the judge's image tower: what programs
    that have an encoder go by. drawn: (B, 4, h, w) latents.
    """
    seen = torch.tensor([not held for held in panel.held])
    photos, pictures = (room.court.embed(room.seen(latents)) for latents in (panel.photos[seen], drawn))
    return (pictures @ photos.T).mean(1).tolist()


def photo_errors(change: Tuned, weight: float, panel: Panel) -> list[float]:
    """Of each photo at each timestep the squared error over the base's mean at that timestep (n T): what `benefit` is
    the mean of.
    """
    with change(weight) as changed:
        said = answers(changed, panel.rows["photos"], panel.clip_skip)
    errors = [(f - panel.target).square().flatten(1).sum(1) for f in (said, panel.base["photos"])]
    own, usual = (error.unflatten(0, (len(panel.names), panel.timesteps)) for error in errors)
    return (own / usual.mean(0)).flatten().tolist()


def code() -> str:
    """What the measures depend on: a hash of the package's evaluation."""
    files = sorted(Path(evaluation.__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:12]


@torch.no_grad()
def measure_run(room: Room, run: Run, subject: Subject, file: Path) -> dict[str, Any]:
    """Every measure of the cells, value by value; kept in `file` after every step, so that a stopped call goes on."""
    told: dict[str, Any] = {"name": run.name, "key": run.key, "code": code(), "cells": {}}
    if file.exists():
        known = json.loads(file.read_text())
        if all(known.get(name) == told[name] for name in ("key", "code")):
            told["cells"] = known["cells"]
    panel = build_panel(room.base, photos_of(run, subject), subject.prompt, size=STANDARD, seed=PANEL_SEED)
    for step, weights in measured_cells():
        missing = [weight for weight in weights if label(step, weight) not in told["cells"]]
        change = tuned(room.base, run.source(step), subject.prompt) if missing else None
        for weight in missing:
            assert change is not None
            items, drawn = examine(room.base, change, weight, panel)
            assert drawn is not None
            items["tower"] = tower_likeness(room, panel, drawn.subject)
            items["photo_errors"] = photo_errors(change, weight, panel)
            told["cells"][label(step, weight)] = {n: rounded(values) for n, values in items.items()}
        keep(file, told)
    told["done"] = True
    keep(file, told)
    return told


def rounded(values: Iterable[float] | Tensor) -> list[float]:
    return [round(float(v), 4) for v in values]


__all__ = ["measure_run", "photos_of", "tower_likeness"]
