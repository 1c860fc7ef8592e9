"""Which likeness ranks the checkpoints of a run as fresh scenes do: references, and ways to compare.

python -m benchmarks.likeness draw --sprites FOLDER [--work out/choice]    # minutes a run; goes on after a stop
python -m benchmarks.likeness tell --sprites FOLDER [--work out/choice]

`draw` takes the runs of benchmarks/checkpoint_choice.py whose checkpoints still lie in the work folder and draws, with
ten (step, weight) of each, the subject as the panel asks for it and on the colours that no photo had; latents are kept
in WORK/likeness. `tell` prints Spearman's correlation, over those ten, of each way with the similarity to fresh scenes
on the same colour in the judge's image tower: the truth of docs/overtraining.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from benchmarks.checkpoint_choice import cast
from benchmarks.choice import plan
from benchmarks.choice.candidates import Run, finished
from benchmarks.choice.drawing import Room, a_photo, sprites_at, with_article
from benchmarks.choice.measuring import photos_of
from benchmarks.choice.subjects import Subject
from maquette.core.noise import NoiseSchedule
from maquette.evaluation.words import POCKET_COLOURS
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.formats import safetensors

CELLS = [(step, weight) for step in (20, 60, 120, 200, 320) for weight in (0.5, 0.85)]
BARE, EACH, FRESH = 4, 2, 3  # pictures without a colour, of each of the panel's colours, of each unseen colour
ASKED = BARE + EACH * len(POCKET_COLOURS)  # the panel's
PANEL_SEED, FRESH_SEED, GALLERY_SEED = 3000, 70_000, 9000
SCENES = 12  # fresh ones on each colour
SHRINK = 0.3  # of the mean variance, added to each direction
LEVELS = (50, 100, 250)  # timesteps of the base's features


def prompts_of(subject: Subject, words: str) -> tuple[list[str], list[str]]:
    """What the panel asks, and what the truth does, with the colour of each ("" for none)."""
    colours = [""] * BARE + [colour for colour in POCKET_COLOURS for _ in range(EACH)]
    colours += [colour for colour in subject.unseen for _ in range(FRESH)]
    return [a_photo(words, c) if c else f"a photo of {words}" for c in colours], colours


def draw(work: Path, people: Sequence[Subject]) -> None:
    """Keep the latents of every run whose checkpoints are there."""
    room = Room.open()
    room = Room(load("pocket", device=room.base.device, dtype=torch.bfloat16), room.court)  # half the time
    for run in with_checkpoints(work):
        file, subject = work / "likeness" / f"{run.name}.safetensors", people[int(run.told["subject"])]
        if file.exists():
            continue
        prompts, _ = prompts_of(subject, subject.prompt)
        plain, _ = prompts_of(subject, with_article(subject.class_word))
        seeds = [*range(PANEL_SEED, PANEL_SEED + ASKED), *range(FRESH_SEED, FRESH_SEED + len(prompts) - ASKED)]
        gallery = range(GALLERY_SEED, GALLERY_SEED + 2 * ASKED)
        found = {"gallery": room.latents(plain[:ASKED] * 2, gallery, room.base).half()}
        for step in sorted({step for step, _ in CELLS}):
            for weight, base in run.opened(room, step, [w for s, w in CELLS if s == step]):
                found[f"{step}@{weight:g}"] = room.latents(prompts, seeds, base).half()
        file.parent.mkdir(parents=True, exist_ok=True)
        safetensors.save(found, file)
        print(f"{run.name} drawn", flush=True)


def with_checkpoints(work: Path) -> list[Run]:
    return [run for run in finished(work, plan.SUBJECTS) if (run.folder / "checkpoints").is_dir()]


@torch.no_grad()
def features(base: BaseModel, latents: Tensor, prompt: str) -> dict[str, Tensor]:
    """Of each block and level the features of one noisy pass, averaged over the plane: "mid_block 50" -> (B, D)."""
    schedule = NoiseSchedule.from_config(base.scheduler_config)
    noise = torch.randn((1, *latents.shape[1:]), generator=torch.Generator().manual_seed(0))
    cond, parts = base.encode_text([prompt]), []
    for level in LEVELS:
        for x0 in latents.float().split(64):
            t, found = torch.full((len(x0),), level), dict[str, Tensor]()
            base.predict(schedule.add_noise(x0, noise.expand_as(x0), t), t, cond[[0] * len(x0)], found)
            parts.append({f"{block} {level}": value.float().mean((2, 3)) for block, value in found.items()})
    return {name: torch.cat([part[name] for part in parts if name in part]) for part in parts for name in part}


def compared(photos: Tensor, gallery: Tensor, pictures: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(B,) likeness of pictures (B, D) to photos (n, D) in three ways; gallery: (m, D) pictures of the class.

    centred: mean cosine, the class's mean taken away. whitened: the same where all directions in which pictures of the
    class differ count alike (within-class covariance normalisation, Hatch and others 2006). discriminant: how far
    towards the photos along Fisher's linear discriminant.
    """
    middle = gallery.mean(0)
    p, g, x = photos - middle, gallery - middle, pictures - middle
    yield "centred", (F.normalize(x, dim=1) @ F.normalize(p, dim=1).T).mean(1)
    covariance = torch.cov(g.T)
    covariance += SHRINK * covariance.diagonal().mean() * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance)
    p, x = (z @ (vectors * values.rsqrt()) for z in (p, x))
    yield "whitened", (F.normalize(x, dim=1) @ F.normalize(p, dim=1).T).mean(1)
    yield "discriminant", x @ p.mean(0)


@torch.no_grad()
def ranked(room: Room, run: Run, subject: Subject, kept: dict[str, Tensor]) -> dict[str, float]:
    """Of every way its Spearman correlation with the truth, over the cells of a run."""
    _, colours = prompts_of(subject, subject.prompt)
    scenes = {c: room.embedded(subject.fresh(c, SCENES, 1)) for c in {*colours} - {""}}
    labels = [f"{step}@{weight:g}" for step, weight in CELLS]
    towers = [room.court.embed(room.seen(kept[name].float())) for name in labels]
    near = torch.tensor(
        [[(t[i] @ scenes[c].T).mean() if c else torch.nan for i, c in enumerate(colours)] for t in towers]
    )
    truth, tower = near[:, ASKED:], torch.stack(towers)[:, :ASKED]
    pixels = torch.stack([photo.pixels for photo in photos_of(run, subject) if not photo.held])
    photos = room.base.encode_images(pixels)[0]
    learned = room.court.embed(room.seen(photos))
    new = torch.tensor([i for i, c in enumerate(colours[:ASKED]) if c in subject.unseen])
    old = torch.tensor([i for i, c in enumerate(colours[:ASKED]) if c in subject.seen])
    found = {
        "the truth, one half by the other": (truth[:, ::2].mean(1), truth[:, 1::2].mean(1)),
        "tower, fresh scenes of the same colour": (near[:, BARE:ASKED].mean(1), truth.mean(1)),
        "- on colours that no photo had": (near[:, new].mean(1), truth.mean(1)),
        "- on colours that photos had": (near[:, old].mean(1), truth.mean(1)),
        "tower, the photos": ((tower @ learned.T).mean((1, 2)), truth.mean(1)),
    }
    prompt = f"a photo of {with_article(subject.class_word)}"
    own, others = features(room.base, photos, prompt), features(room.base, kept["gallery"], prompt)
    drawn_ones = features(room.base, torch.cat([kept[name][:ASKED] for name in labels]), prompt)
    for name in own:
        for way, values in compared(own[name], others[name], drawn_ones[name]):
            found[f"{name}, {way}"] = (values.unflatten(0, (len(labels), ASKED)).mean(1), truth.mean(1))
    return {name: float(spearmanr(a, b).statistic) for name, (a, b) in found.items()}


def tell(work: Path, people: Sequence[Subject]) -> None:
    """Print the table: the mean over the runs, and each run."""
    room, found = Room.open("cpu"), dict[str, dict[str, float]]()
    for run in with_checkpoints(work):
        file = work / "likeness" / f"{run.name}.safetensors"
        if file.exists():
            found[run.name] = ranked(room, run, people[int(run.told["subject"])], safetensors.load(file))
    names = sorted(next(iter(found.values())), key=lambda name: -np.mean([one[name] for one in found.values()]))
    print(f"| way | mean of {len(found)} runs | {' | '.join(found)} |\n|{'---|' * (2 + len(found))}")
    for name in names:
        each = [one[name] for one in found.values()]
        print(f"| {name} | {np.mean(each):.2f} | {' | '.join(f'{value:.2f}' for value in each)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=("draw", "tell"))
    parser.add_argument("--sprites", type=Path, required=True, help="as benchmarks.checkpoint_choice takes them")
    parser.add_argument("--work", type=Path, default=Path("out/choice"), help="that benchmark's work folder")
    arguments = parser.parse_args()
    people = cast(arguments.work, sprites_at(arguments.sprites), plan.SUBJECTS)
    (draw if arguments.phase == "draw" else tell)(arguments.work, people)


if __name__ == "__main__":
    main()
