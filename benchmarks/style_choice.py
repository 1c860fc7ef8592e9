"""How well the verdict chooses for a style: three that pocket never saw, every cell judged by pocket's own judge.

python -m benchmarks.style_choice OUT [--steps 200] [--styles washed,night,sketch]

A style is a change of the pictures' colours and edges. Its 14 photos are things that pocket drew, changed so, each with
its caption; other things, seeds and prompts are the truth. Worth of a (step, weight) = style x obedience x kept: how
near the colours and edges of drawings in the style are to those of pocket's own drawings of the same things changed so
(Bhattacharyya's coefficient of pooled histograms; 0 for the unchanged drawings, 1 for changed ones of other seeds); how
surely the judge sees the thing asked for, over those drawings; how surely it sees things asked for without the style,
over pocket's. Prints the regret of the verdict and of others, and keeps every row in benchmarks/results. What was
judged is kept in OUT too, so that a stopped call goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

import maquette
from benchmarks.choice.drawing import Room, with_article
from benchmarks.questions import style as washed
from maquette.evaluation import Row, build_panel, choose, measure_items
from maquette.evaluation.choice import score
from maquette.evaluation.panel import STANDARD
from maquette.evaluation.rule import RULE, STYLE_RULE
from maquette.evaluation.tuned import tuned
from maquette.evaluation.words import POCKET_COLOURS
from maquette.run_folder import RunFolder
from maquette.training.photos import read_photos
from maquette.training.resuming import read_config
from maquette.training.verdicts import examples
from tools.pocket.scenes import OBJECTS

SUBJECT = "zkw style"
RESULTS, ROW = Path(__file__).parent / "results" / "style_choice.json", ",\n  "
TRAINED = tuple(OBJECTS)[:56:4]
TRUE = ("bee", "whale", "lemon", "bell", "candle", "gift", "soccer ball", "doughnut")  # neither trained nor measured
PLAIN = ("cow", "duck", "strawberry", "carrot", "hamburger", "basketball", "light bulb", "sun")
SEEDS, FIRST_SEED = 2, 60_000
PARTS = 5  # checkpoints that are judged
WEIGHTS = (0.5, 0.7, 0.85, 1.0, 1.15)
COLOURS, EDGES = 6, 16  # bins of a channel, and of edges


def sketch(image: Image.Image) -> Image.Image:
    """Blue lines on cream paper."""
    edges = ImageOps.autocontrast(ImageOps.invert(image.convert("L").filter(ImageFilter.FIND_EDGES)), cutoff=2)
    return ImageOps.colorize(edges, (30, 30, 90), (250, 246, 230))


def night(image: Image.Image) -> Image.Image:
    """Four tones from dark blue over crimson to amber."""
    flat = ImageOps.posterize(image.convert("L").convert("RGB"), 2).convert("L")
    return ImageOps.colorize(flat, (10, 5, 40), (255, 190, 90), mid=(150, 20, 90))


STYLES: dict[str, Callable[[Image.Image], Image.Image]] = {"washed": washed, "night": night, "sketch": sketch}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--styles", default=",".join(STYLES))
    arguments = parser.parse_args()
    room = Room.open("cpu")
    found = {}
    for name in arguments.styles.split(","):
        run = trained(arguments.out, name, arguments.steps)
        rows = cells(room, run, STYLES[name], arguments.out / f"{name}.json")
        tell(name, rows)
        found[name] = [brief(row) for row in rows]
    lines = ",\n".join(f' "{name}": [\n  {ROW.join(map(json.dumps, rows))}\n ]' for name, rows in found.items())
    RESULTS.write_text(f"{{\n{lines}\n}}\n")


def brief(row: dict[str, Any]) -> dict[str, float]:
    """A row with the means of what was measured."""
    means = Row.of(row["step"], row["weight"], row["items"]).values
    truth = {f"true_{key}": row[key] for key in ("style", "obedience", "kept")}
    told = {**{key: row[key] for key in ("step", "weight", "worth")}, **truth, **means}
    return {key: round(value, 4) for key, value in told.items()}


def trained(out: Path, name: str, steps: int) -> RunFolder:
    """The run of a style, trained where it is not there."""
    photos, run = out / "photos" / name, out / f"run-{name}"
    if not photos.exists():
        photos.mkdir(parents=True)
        for i, thing in enumerate(TRAINED):
            shown = f"{with_article(thing)} on {with_article(POCKET_COLOURS[i % 7])} background"
            drawn = maquette.generate(f"a photo of {shown}", seed=i, steps=15, out=out / "drawn")[0]
            STYLES[name](drawn).save(photos / f"{i:02}.png")
            (photos / f"{i:02}.txt").write_text(f"{shown}, {SUBJECT}")
    if not (run / f"{run.name}.safetensors").exists():
        maquette.train(
            photos, subject=SUBJECT, kind="style", steps=steps, out=run, choose=False, learning_rate=1e-3,
            save_every_steps=steps // (2 * PARTS),
        )  # fmt: skip
    return RunFolder.open(run)


def cells(room: Room, run: RunFolder, change: Callable[[Image.Image], Image.Image], file: Path) -> list[dict[str, Any]]:
    """Of every cell what was measured and what it is worth."""
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.exists() else []
    files = run.checkpoints()
    steps = sorted(files)[1::2]
    known = {(row["step"], row["weight"]) for row in rows}
    wanted = [(step, weight) for step in steps for weight in WEIGHTS if (step, weight) not in known]
    if not wanted:
        return rows
    config = read_config(run)
    dataset, *_ = read_photos(config, room.base, lambda what, done, of: None)
    panel = build_panel(room.base, examples(dataset, room.base), SUBJECT, kind="style", size=STANDARD)
    jury = Jury(room, change)
    for step, weight in wanted:
        items = measure_items(room.base, files[step], weight, panel)
        with tuned(room.base, files[step], SUBJECT)(weight) as base:
            truth = jury.judged(base, f", {SUBJECT}")
        rows.append({"step": step, "weight": weight, "items": items, **truth})
        file.write_text(json.dumps(rows))
        print(run.path.name, step, weight, {k: round(v, 2) for k, v in truth.items()}, flush=True)
    return rows


class Jury:
    """Judges pictures of TRUE things in a style, and of PLAIN things without it."""

    def __init__(self, room: Room, change: Callable[[Image.Image], Image.Image]) -> None:
        self.room = room
        things = [thing for thing in TRUE for _ in range(SEEDS)]
        drawn = [self.drawn(room.base, [f"a photo of {with_article(t)}" for t in things], k) for k in (0, 1, 2)]
        true = [torch.stack([changed(own, change) for own in pixels]) for pixels in drawn[:2]]
        true = [room.seen(room.base.encode_images(pixels * 2 - 1)[0]) for pixels in true]  # as pictures are seen
        self.fresh = histograms(true[0])
        self.high = near(histograms(true[1]), self.fresh)
        self.low = near(histograms(drawn[2]), self.fresh)
        self.right = self.seen(torch.cat(true), [*things, *things])
        self.plain = self.seen(self.plainly(room.base), PLAIN)

    def judged(self, base: Any, style: str) -> dict[str, float]:
        things = [thing for thing in TRUE for _ in range(SEEDS)]
        self.room.forget()
        pixels = self.drawn(base, [f"{with_article(thing)}{style}" for thing in things], 3)
        told = {
            "style": (near(histograms(pixels), self.fresh) - self.low) / (self.high - self.low),
            "obedience": min(1.0, self.seen(pixels, things) / self.right),
            "kept": min(1.0, self.seen(self.plainly(base), PLAIN) / self.plain),
        }
        self.room.forget()
        return {"worth": max(told["style"], 0.0) * told["obedience"] * told["kept"], **told}

    def plainly(self, base: Any) -> Tensor:
        return self.drawn(base, [f"a photo of {with_article(thing)}" for thing in PLAIN], 4)

    def drawn(self, base: Any, prompts: Sequence[str], which: int) -> Tensor:
        first = FIRST_SEED + 1000 * which
        return self.room.draw(prompts, range(first, first + len(prompts)), base)

    def seen(self, pixels: Tensor, things: Sequence[str]) -> float:
        """How surely the judge sees what was asked for."""
        court = self.room.court
        chances = court.object_probabilities(pixels)
        return float(chances[range(len(things)), [court.objects.index(thing) for thing in things]].mean())


def histograms(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [0, 1] -> shares of COLOURS ** 3 colours and of EDGES strengths of edges, over all pictures."""
    bins = (pixels * COLOURS).long().clamp(0, COLOURS - 1)
    colours = torch.bincount(
        ((bins[:, 0] * COLOURS + bins[:, 1]) * COLOURS + bins[:, 2]).flatten(), minlength=COLOURS**3
    )
    grey = pixels.mean(1)
    slope = (grey.diff(dim=1)[:, :, :-1].square() + grey.diff(dim=2)[:, :-1].square()).sqrt()
    edges = torch.histc(slope, EDGES, 0, 0.5)
    return colours / colours.sum(), edges / edges.sum()


def near(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Mean over both kinds of Bhattacharyya's coefficient, 1 for equal shares."""
    return float(np.mean([float((a * b).sqrt().sum()) for a, b in zip(one, other, strict=True)]))


def changed(pixels: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """(3, H, W) in [0, 1], likewise."""
    image = Image.fromarray((pixels.permute(1, 2, 0) * 255).round().byte().numpy())
    return torch.from_numpy(np.array(change(image).convert("RGB"))).permute(2, 0, 1).float() / 255


def tell(name: str, rows: list[dict[str, Any]]) -> None:
    """The regret of each way to choose."""
    worth = {(row["step"], row["weight"]): row["worth"] for row in rows}
    measured = [Row.of(row["step"], row["weight"], row["items"]) for row in rows]
    best = max(worth, key=lambda cell: worth[cell])
    last = max(step for step, _ in worth)
    likeness = max(measured, key=lambda row: row.values["likeness"])
    ways = {
        "the verdict": choose(measured, rule=STYLE_RULE),
        "the rule of things": choose(measured, rule=RULE),
        "best score alone": max(measured, key=lambda row: score(row.values, rule=STYLE_RULE)),
        "likeness alone": likeness,
    }
    chosen = {way: (row.step, row.weight) for way, row in ways.items()}
    chosen |= {f"last step, weight {weight:g}": (last, weight) for weight in (1.0, 0.7)}
    print(f"{name}: best {best}, worth {worth[best]:.2f}")
    for way, cell in chosen.items():
        print(f"  {way}: {cell}, regret {1 - worth[cell] / worth[best]:.1%}")
    likeness_rank = _spearman([row["style"] for row in rows], [row.values["likeness"] for row in measured])
    rank = _spearman([row["worth"] for row in rows], [score(row.values, rule=STYLE_RULE) for row in measured])
    print(f"  Spearman of likeness with the true style {likeness_rank:.2f}, of the score with the worth {rank:.2f}")


def _spearman(one: Sequence[float], other: Sequence[float]) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


if __name__ == "__main__":
    main()
