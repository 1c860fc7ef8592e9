"""Each sampler with each schedule on the pocket base: how often the class head sees the object that was asked for.

    python -m benchmarks.sampler_table FOLDER

FOLDER keeps table.json, which grows combination by combination and is gone on with, and sheet.png: the first picture of
each, samplers from top to bottom, schedules from left to right. Prints the table of docs/samplers.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from PIL import Image

from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import judge
from maquette.files import write_json
from maquette.report.sheet import sheet
from maquette.sampling.images import to_image
from maquette.sampling.loop import sample
from maquette.sampling.samplers import SAMPLERS
from maquette.sampling.schedules import SCHEDULES

OBJECTS = ("cat", "star", "umbrella")
STEPS, CFG_SCALE = 12, 4.0
# Whose paper's scale of 1 is 12.5 here, and whose models are made for a scale of about 1.
SCALES = {"DDIM CFG++": 12.5, "LCM": 1.5}


def combinations() -> list[tuple[str, str]]:
    """(sampler, schedule), with each sampler's usual schedule first of all; samplers with timesteps of their own have
    one, "Automatic".
    """
    usual = [
        (name, "Automatic" if kind.by_timesteps else kind.automatic or "Uniform") for name, kind in SAMPLERS.items()
    ]
    several = [name for name, kind in SAMPLERS.items() if not kind.by_timesteps]
    every = [(name, schedule) for name in several for schedule in SCHEDULES]
    return usual + [pair for pair in every if pair not in usual]


@torch.no_grad()
def drawn(base: BaseModel, sampler: str, schedule: str) -> torch.Tensor:
    """A picture of each object, (N, 3, 64, 64) in [0, 1]."""
    prompts = [f"a photo of {'an' if thing[0] in 'aeiou' else 'a'} {thing} on a red background" for thing in OBJECTS]
    name = sampler if schedule == "Automatic" else f"{sampler} {schedule}"
    size = base.spec.native_size
    latents = sample(
        base, base.encode_text(prompts), base.encode_text([""] * len(prompts)), sampler=name, steps=STEPS,
        cfg_scale=SCALES.get(sampler, CFG_SCALE), seeds=list(range(len(prompts))), width=size, height=size,
    )  # fmt: skip
    return base.decode(latents)


def main(folder: Path) -> None:
    base, court = load("pocket"), judge()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "table.json"
    found: dict[str, list[str]] = json.loads(file.read_text()) if file.exists() else {}
    for sampler, schedule in combinations():
        key = f"{sampler} / {schedule}"
        if key not in found:
            pictures = drawn(base, sampler, schedule)
            to_image(pictures[0]).save(folder / f"{sampler} with {schedule}.png")
            found[key] = court.name_objects(pictures)
            write_json(file, found)
    print("| sampler | " + " | ".join(SCHEDULES) + " |")
    print("|---" * (len(SCHEDULES) + 1) + "|")
    for sampler in SAMPLERS:
        keys = [f"{sampler} / {schedule}" for schedule in SCHEDULES]
        own = found.get(f"{sampler} / Automatic")
        cells = [_right(own)] + [""] * (len(SCHEDULES) - 1) if own else [_right(found[key]) for key in keys]
        print(f"| {sampler} | " + " | ".join(cells) + " |")
    several = [name for name, kind in SAMPLERS.items() if not kind.by_timesteps]
    images = [Image.open(folder / f"{name} with {schedule}.png") for name in several for schedule in SCHEDULES]
    sheet(images, len(SCHEDULES), list(SCHEDULES), several).save(folder / "sheet.png")


def _right(seen: list[str]) -> str:
    return str(sum(one == asked for one, asked in zip(seen, OBJECTS, strict=True)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
