"""The trainings, one after the other, each into a folder of the work folder, which is whole or not there."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import maquette
from benchmarks.choice import plan
from benchmarks.choice.subjects import Subject
from maquette.formats.safetensors import load, save
from tools.pocket.scenes import COLOURS

PHOTOS = {"captioned": 14, "uncaptioned": 14, "five": 5}
GROUNDS = {"captioned": 7, "uncaptioned": 2, "five": 3}  # colours of the backgrounds


def write_photos(folder: Path, subject: Subject, data: str) -> None:
    """The photos of a kind: `captioned` and `five` name their backgrounds, `uncaptioned` have no captions."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng([17, *subject.name.encode(), *data.encode()])
    for i in range(PHOTOS[data]):
        colour = subject.seen[i % GROUNDS[data]]
        subject.scene(rng, colour, i).save(folder / f"{i:02}.png")
        if data != "uncaptioned":
            article = "an" if colour[0] in "aeiou" else "a"
            (folder / f"{i:02}.txt").write_text(f"a photo of {subject.prompt} on {article} {colour} background\n")


def train(setting: plan.Setting, subject: Subject, folder: Path) -> dict[str, Any]:
    """Train one setting. Leaves folder/photos, folder/checkpoints/STEP.safetensors and, last of all, folder/run.json.

    A folder without run.json, which an interrupted training left, is removed first.
    """
    if folder.exists():
        shutil.rmtree(folder)
    photos = folder / "photos"
    write_photos(photos, subject, setting.data)
    wall, processor = time.perf_counter(), time.process_time()
    result = maquette.train(
        photos,
        subject=subject.prompt,
        out=folder / "run",
        steps=plan.STEPS,
        batch_size=plan.BATCH,
        lr_scheduler="constant",
        save_every_steps=plan.SAVED,
        sample_prompts=[],
        choose=False,  # that is what is measured here, by other means
        seed=setting.subject,
        **setting.options,
    )
    told = {
        **setting.told(),
        "name": setting.name,
        "key": plan.key(setting, subject.told()),
        "subject_told": subject.told(),
        "photos": PHOTOS[setting.data],
        "steps": plan.STEPS,
        "batch": plan.BATCH,
        "seconds": round(time.perf_counter() - wall, 1),
        "processor_seconds": round(time.process_time() - processor, 1),
        "images_per_second": round(result.images_per_second, 1),
        "losses": [round(json.loads(line)["loss"], 5) for line in (folder / "run/metrics.jsonl").open()],
    }
    keep(folder)
    part = folder / "run.part"
    part.write_text(json.dumps(told))
    part.replace(folder / "run.json")
    return told


def keep(folder: Path) -> None:
    """Keep of the run folder the checkpoints that are judged, whole models as their UNet alone; remove the rest."""
    target = folder / "checkpoints"
    target.mkdir()
    for path in sorted((folder / "run/checkpoints").glob("*.safetensors")):
        step = int(re.findall(r"-(\d{6,})$", path.stem)[-1])
        if step not in plan.CHECKPOINTS:
            continue
        if path.stat().st_size < 10_000_000:
            path.replace(target / f"{step:06}.safetensors")
        else:
            save(unet_alone(load(path)), target / f"{step:06}.safetensors")
    shutil.copy(folder / "run/run.toml", folder / "run.toml")
    shutil.rmtree(folder / "run")


def unet_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a single-file model's UNet, float16."""
    return {k: v.to(torch.float16) for k, v in state.items() if k.startswith("model.diffusion_model.")}


__all__ = ["COLOURS", "keep", "train", "write_photos"]
