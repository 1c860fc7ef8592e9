"""Which likeness ranks the checkpoints of a run as fresh scenes do: references, and ways to compare.

python -m benchmarks.likeness --sprites FOLDER [--work out/choice] [--runs N]

Takes the pictures that benchmarks/checkpoint_choice.py kept of 36 (step, weight) of each run: four of the subject alone
and one on each of twelve colours. The photos' subject set before the same colours is cut out as `maquette evaluate`
does it (evaluation/references.py). Prints Spearman's correlation, over those 36, of each way with the similarity to
fresh scenes on the same colour in the judge's image tower, the truth of docs/overtraining.md. Seconds a run, kept in
WORK/likeness.json as they come: a stopped call goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor
from torch.nn import functional as F

from benchmarks.checkpoint_choice import cast
from benchmarks.choice import plan
from benchmarks.choice.candidates import Run, finished
from benchmarks.choice.drawing import Room, sprites_at, with_article
from benchmarks.choice.latents import BARE, CELLS, load_latents
from benchmarks.choice.measuring import photos_of
from benchmarks.choice.subjects import Subject
from benchmarks.choice.truth import keep, label
from maquette.core.noise import NoiseSchedule
from maquette.evaluation.features import STATISTICS_LEVEL
from maquette.evaluation.panel import STANDARD
from maquette.evaluation.references import deviations, set_where_asked
from maquette.families import load
from maquette.families.base import BaseModel
from tools.pocket.scenes import COLOURS

SHOWN = BARE + len(COLOURS)  # pictures of a cell that are looked at, those without a colour first
SCENES = 12  # fresh ones on each colour
BLOCKS = ("mid_block", "up_blocks.1")
Scores = dict[str, np.ndarray]
"""Of each way a number for each cell."""


@torch.no_grad()
def features(base: BaseModel, latents: Tensor, prompt: str) -> dict[str, Tensor]:
    """Of each block the channels' means and deviations over the plane after one noisy pass, (B, 2 D)."""
    schedule = NoiseSchedule.from_config(base.scheduler_config)
    noise = torch.randn((1, *latents.shape[1:]), generator=torch.Generator().manual_seed(0))
    cond, parts = base.encode_text([prompt]), dict[str, list[Tensor]]()
    for x0 in latents.split(64):
        t, found = torch.full((len(x0),), int(STATISTICS_LEVEL * len(schedule))), dict[str, Tensor]()
        base.predict(schedule.add_noise(x0, noise.expand_as(x0), t), t, cond[[0] * len(x0)], found)
        for block in BLOCKS:
            plane = found[block].float()
            parts.setdefault(block, []).append(torch.cat([plane.mean((2, 3)), plane.std((2, 3))], 1))
    return {block: torch.cat(values) for block, values in parts.items()}


def compared(photos: Tensor, gallery: Tensor, pictures: Tensor) -> Iterator[tuple[str, Tensor]]:
    """(B,) likeness of pictures (B, D) to photos (n, D) in several ways; gallery: (m, D) pictures of the class."""
    middle = gallery.mean(0)
    yield "mean cosine, centred", cosine(pictures - middle, photos - middle).mean(1)
    scale = whitening(gallery)
    p, x = (photos - middle) @ scale, (pictures - middle) @ scale
    yield "mean cosine, whitened", cosine(x, p).mean(1)
    yield "distance to the nearest, whitened", -torch.cdist(x, p).amin(1)


def compared_where_asked(references: Tensor, gallery: Tensor, pictures: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same of pictures (cells, K, D) to references (K, r, D) on the same colour: (cells, K)."""
    own, middle, deviation = gallery.mean(0), (gallery.mean(0) + references.mean((0, 1))) / 2, deviations(gallery)
    for name, centre in (("the class", own), ("class and references", middle)):
        x, r = ((values - centre) / deviation for values in (pictures, references))
        yield f"mean cosine, centred on {name}", torch.stack([cosine(x[:, k], r[k]).mean(1) for k in range(len(r))], 1)
    scale = whitening(gallery)
    x, r = (pictures - own) @ scale, (references - own) @ scale
    yield (
        "distance to the nearest, whitened",
        -torch.stack([torch.cdist(x[:, k], r[k]).amin(1) for k in range(len(r))], 1),
    )


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """(n, D), (m, D) -> (n, m)."""
    return F.normalize(a, dim=1) @ F.normalize(b, dim=1).T


def whitening(samples: Tensor) -> Tensor:
    """Scale (D, D) of samples (m, D), so that all directions in which they differ count alike: each number by its own
    deviation first, then all together by the root of the inverse covariance, shrunk by its mean variance.
    """
    deviation = deviations(samples)
    covariance = torch.cov(((samples - samples.mean(0)) / deviation).T)
    covariance += covariance.diagonal().mean() * torch.eye(len(covariance))
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.rsqrt()).to(samples) / deviation[:, None]


@torch.no_grad()
def scores(room: Room, eye: BaseModel, run: Run, subject: Subject, kept: dict[str, Tensor]) -> Scores:
    """What each way says of each cell."""
    cells = kept["cells"][:, :SHOWN]
    towers = torch.stack([room.court.embed(room.seen(latents)) for latents in cells])  # (cells, SHOWN, D)
    scenes = torch.stack([room.embedded(subject.fresh(colour, SCENES, 1)) for colour in COLOURS])
    examples = photos_of(run, subject)
    photos = room.base.encode_images(torch.stack([p.pixels for p in examples]))[0]
    set_before = set_where_asked(room.base, examples, kept["base"][BARE:SHOWN], STANDARD.references)
    asked = room.base.encode_images(set_before.flatten(0, 1))[0].unflatten(0, set_before.shape[:2])
    learned = room.court.embed(room.seen(photos))
    moved = room.court.embed(room.seen(asked.flatten(0, 1))).unflatten(0, asked.shape[:2])
    found = {
        "judge's tower, fresh scenes of the same colour": torch.einsum("ckd,ksd->c", towers[:, BARE:], scenes),
        "judge's tower, the photos": torch.einsum("ckd,nd->c", towers[:, BARE:], learned),
        "judge's tower, where asked": torch.einsum("ckd,krd->c", towers[:, BARE:], moved),
    }
    prompt = f"a photo of {with_article(subject.class_word)}"
    own, others = (features(eye, latents, prompt) for latents in (photos, torch.cat([kept["base"], kept["gallery"]])))
    drawn = features(eye, cells.flatten(0, 1), prompt)
    references = features(eye, asked.flatten(0, 1), prompt)
    for block in BLOCKS:
        half = own[block].shape[1] // 2
        for kind, part in (("means", slice(half)), ("means and deviations", slice(None))):
            for way, values in compared(own[block][:, part], others[block][:, part], drawn[block][:, part]):
                each = values.unflatten(0, (len(CELLS), SHOWN))
                found[f"{block}, {kind}: {way}"] = each[:, BARE:].mean(1)
                found[f"{block}, {kind}: {way}, without a colour"] = each[:, :BARE].mean(1)
            where = references[block][:, part].unflatten(0, asked.shape[:2])
            planes = drawn[block][:, part].unflatten(0, (len(CELLS), SHOWN))[:, BARE:]
            for way, values in compared_where_asked(where, others[block][:, part], planes):
                found[f"{block}, {kind}, where asked: {way}"] = values.mean(1)
    return {name: values.cpu().numpy() for name, values in found.items()}


def truth_of(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(cells,) similarity to fresh scenes by every second draw, and by the others."""
    draws = json.loads(file.read_text())["draws"]
    halves = [[np.mean([d["similarity"] for d in draws[label(*cell)][k::2]]) for cell in CELLS] for k in (0, 1)]
    return np.array(halves[0]), np.array(halves[1])


def ranked(found: Scores, halves: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Of every way its Spearman correlation with the truth."""
    told = {name: spearmanr(values, sum(halves)).statistic for name, values in found.items()}
    return {"the truth, one half by the other": spearmanr(*halves).statistic, **told}


def table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: each way's mean and median over the runs, and the mean over those of DreamBooth."""
    whole = [one for name, one in found.items() if "dreambooth" in name]
    names = sorted(next(iter(found.values())), key=lambda name: -np.mean([one[name] for one in found.values()]))
    lines = [f"| way | mean of {len(found)} runs | median | mean of {len(whole)} of DreamBooth |", "|---" * 4 + "|"]
    for name in names:
        each, own = ([one[name] for one in part] for part in (found.values(), whole))
        lines.append(
            f"| {name} | {np.mean(each):.2f} | {np.median(each):.2f} | {np.mean(own) if own else np.nan:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sprites", type=Path, required=True, help="as benchmarks.checkpoint_choice takes them")
    parser.add_argument("--work", type=Path, default=Path("out/choice"), help="that benchmark's work folder")
    parser.add_argument("--runs", type=int, help="the first so many of the runs only")
    arguments = parser.parse_args()
    people = cast(arguments.work, sprites_at(arguments.sprites), plan.SUBJECTS)
    room, eye = Room.open("cpu"), load("pocket", device=torch.device("cpu"), dtype=torch.bfloat16)
    rows = arguments.work / "likeness.json"
    found = json.loads(rows.read_text()) if rows.exists() else {}
    runs = {f"{run.name} {run.key}": run for run in finished(arguments.work, plan.SUBJECTS)[: arguments.runs]}
    for row, run in runs.items():
        if row in found:
            continue
        kept = load_latents(arguments.work / "latents" / f"{run.name}.safetensors")
        own = scores(room, eye, run, people[int(run.told["subject"])], kept)
        found[row] = ranked(own, truth_of(arguments.work / "truth" / f"{run.name}.json"))
        keep(rows, found)
    print(table({row: found[row] for row in runs}))


if __name__ == "__main__":
    main()
