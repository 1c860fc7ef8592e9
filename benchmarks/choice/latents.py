"""What every measured cell draws of the subject, its class and other things, kept as latents for measures to come.

WORK/latents/RUN.safetensors: "cells" (cells, pictures, 4, 16, 16), "base" (pictures of the class under the subject's
prompts and seeds) and "gallery" (twice as many under other seeds), int8 in steps of STEP.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.choice import plan
from benchmarks.choice.candidates import Run
from benchmarks.choice.drawing import Room, a_photo, with_article
from benchmarks.choice.measuring import PANEL_SEED, code, photos_of, rounded
from benchmarks.choice.subjects import Subject
from benchmarks.choice.truth import keep, label
from benchmarks.choice.utility import Cell
from maquette.core.noise import NoiseSchedule
from maquette.evaluation.features import make_eye
from maquette.evaluation.measures import likeness
from maquette.evaluation.panel import STANDARD
from maquette.evaluation.references import make_references
from maquette.evaluation.words import POCKET_COLOURS, POCKET_OTHERS
from maquette.formats import safetensors
from tools.pocket.scenes import COLOURS, STYLES

STEP = 0.25  # of the kept latents, whose deviation is about 1
BARE, STYLED, CLASSED, OTHERS = 4, 2, 4, 6
FIRST_SEED, GALLERY_SEED = 40_000, 50_000
CELLS: list[Cell] = [
    (step, weight)
    for i, step in enumerate(plan.CHECKPOINTS)
    for weight in ((0.5, 0.7, 0.85, 1.0) if i % 2 else (0.5, 0.7))
]


@dataclass(frozen=True)
class Asked:
    """A prompt and what it asks for; "" where it does not. what: "subject", "class" or another thing."""

    prompt: str
    what: str
    colour: str = ""
    style: str = ""


def asked(subject: Subject, words: str) -> list[Asked]:
    """The pictures of a cell: of the subject, as `words` call it, first."""
    colours, styles = list(COLOURS), list(STYLES)
    pairs = [("", "")] * BARE + [(colour, "") for colour in colours]
    pairs += [("", style) for style in styles for _ in range(STYLED)]
    pairs += [(colours[2 * i + k], style) for i, style in enumerate(styles) for k in range(STYLED)]
    own = [Asked(worded(words, *pair), "subject", *pair) for pair in pairs]
    thing = with_article(subject.class_word)
    own += [Asked(a_photo(thing, c), "class", c) for c in POCKET_COLOURS[:CLASSED]]
    others = [other for other in POCKET_OTHERS if other != subject.class_word][:OTHERS]
    return own + [Asked(f"a photo of {with_article(other)}", other) for other in others]


def worded(words: str, colour: str, style: str) -> str:
    if colour:
        return a_photo(words, colour, style)
    return f"a photo of {words}, {STYLES[style]}" if style else f"a photo of {words}"


def keep_latents(room: Room, run: Run, subject: Subject, file: Path, cells: Sequence[Cell] = CELLS) -> None:
    """Draw every cell and write the file; nothing where it is there."""
    if file.exists():
        return
    asks = asked(subject, subject.prompt)
    prompts, seeds = [ask.prompt for ask in asks], range(FIRST_SEED, FIRST_SEED + len(asks))
    plain = [ask.prompt for ask in asked(subject, with_article(subject.class_word)) if ask.what == "subject"]
    found: dict[Cell, Tensor] = {}
    for step in sorted({step for step, _ in cells}):
        for weight, base in run.opened(room, step, [w for s, w in cells if s == step]):
            found[step, weight] = room.latents(prompts, seeds, base)
    state = {
        "cells": torch.stack([found[cell] for cell in cells]),
        "base": room.latents(plain, seeds[: len(plain)], room.base),
        "gallery": room.latents(plain * 2, range(GALLERY_SEED, GALLERY_SEED + 2 * len(plain)), room.base),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    small = {name: (x / STEP).round().clamp(-127, 127).to(torch.int8).cpu() for name, x in state.items()}
    safetensors.save(small, file)


@torch.no_grad()
def look_again(room: Room, run: Run, subject: Subject, file: Path, measures: Path) -> None:
    """Write into a run's measures the likeness of the kept cells, by the pictures on colours; cells that were not kept
    lose it.
    """
    state, device = load_latents(file), room.base.device
    on_colours = [
        i for i, ask in enumerate(asked(subject, "")) if ask.what == "subject" and ask.colour and not ask.style
    ]
    cells, base, gallery = (state[name][..., on_colours, :, :, :].to(device) for name in ("cells", "base", "gallery"))
    photos = photos_of(run, subject)
    latents = torch.cat([room.base.encode_images(e.pixels[None].to(device))[0].float() for e in photos])
    schedule = NoiseSchedule.from_config(room.base.scheduler_config).to(device)
    eye = make_eye(room.base, latents, gallery[:8], subject.class_word, schedule, PANEL_SEED)
    own, more = eye.statistics(base), eye.statistics(gallery)
    like = make_references(eye.statistics, room.base, photos, range(len(base)), STANDARD.references, base, own, more)
    near = [likeness(like.similarity(eye.statistics(cell)), like.low, like.high) for cell in cells]
    told = json.loads(measures.read_text())
    for items in told["cells"].values():
        items.pop("likeness", None)
    for cell, values in zip(CELLS, near, strict=True):
        told["cells"][label(*cell)]["likeness"] = rounded(values)
    keep(measures, {**told, "code": code()})


def load_latents(file: Path) -> dict[str, Tensor]:
    """The same, float32."""
    return {name: x.float() * STEP for name, x in safetensors.load(file).items()}
