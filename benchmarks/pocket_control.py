"""Do pictures follow pocket's ControlNet, and still their prompt? python -m benchmarks.pocket_control SPRITES [--card]

Held-out scenes: other seeds than in training, objects of the base upright anywhere in the picture. Each is drawn with
its caption, with and without its edges. Edges are compared by F1: an edge counts as met where the other picture has one
within a pixel (Chebyshev). --card writes the figures into docs/controlnet.md and the sheet into docs/images.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from maquette.families.pocket.judge import judge
from maquette.report.sheet import sheet
from maquette.sampling.control import pixels_of
from maquette.sampling.pictures.edges import canny
from maquette.sampling.pipeline import Pipeline
from tools.pocket.control import compose
from tools.pocket.scenes import OBJECTS, Sprites

ROOT = Path(__file__).parent.parent
SEED, SHOWN = 99, 8


def near(edges: np.ndarray) -> np.ndarray:
    """(H, W) bool -> the places within a pixel of an edge."""
    wide = np.pad(edges, 1)
    height, width = edges.shape
    return np.max([wide[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)


def edge_f1(drawn: np.ndarray, wanted: np.ndarray) -> float:
    """Harmonic mean of the share of drawn edges that are wanted and of wanted edges that are drawn; both bool."""
    precision = (drawn & near(wanted)).sum() / max(1, drawn.sum())
    recall = (wanted & near(drawn)).sum() / max(1, wanted.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprites", type=Path, help="folder with noto/, fluent-3d/ and fluent-flat/ of 128-pixel PNGs")
    parser.add_argument("--scenes", type=int, default=40)
    parser.add_argument("--control", default="pocket-canny")
    parser.add_argument("--sheet", type=Path, default=Path("out/pocket_control.png"))
    parser.add_argument("--card", action="store_true")
    args = parser.parse_args()
    sprites, rng, court = Sprites.load(args.sprites), np.random.default_rng(SEED), judge()
    scenes = [compose(rng, sprites, known=True) for _ in range(args.scenes)]
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    hint = args.sheet.parent / "edges.png"
    kinds: dict[str, dict[str, Any]] = {"without": {}, "weight 0.5": {"weight": 0.5}, "weight 1": {"weight": 1.0}}
    scores: dict[str, list[float]] = {kind: [] for kind in kinds}
    right: dict[str, list[bool]] = {kind: [] for kind in kinds}
    rows: list[Image.Image] = []
    with Pipeline() as pipeline:
        for i, scene in enumerate(scenes):
            Image.fromarray(scene.edges).convert("RGB").save(hint)
            row = [Image.open(hint).copy()]
            for kind, how in kinds.items():
                controls = [{"model": args.control, "image": hint, **how}] if how else []
                picture = pipeline.generate(scene.caption, seed=i, steps=20, controls=controls)[0].image
                row.append(picture)
                scores[kind].append(edge_f1(canny(np.asarray(picture), 100, 200) > 0, scene.edges > 0))
                probabilities = court.object_probabilities(pixels_of(picture))
                right[kind].append(int(probabilities.argmax()) == scene.object)
            if i < SHOWN:
                rows += row
    hint.unlink()
    labels = ["edges", *kinds]
    sheet(rows, len(labels), labels_top=labels, zoom=2).save(args.sheet)
    told = (
        f"{args.scenes} scenes, DDIM, 20 steps, CFG 4; {date.today()}, {platform.machine()}, torch {torch.__version__}."
    )
    lines = ["| | edge F1 | asked object right |", "|---|---|---|"]
    lines += [f"| {kind} | {np.mean(scores[kind]):.3f} | {np.mean(right[kind]):.1%} |" for kind in kinds]
    table = "\n".join([told, "", *lines])
    print(table)
    if wrong := sorted({list(OBJECTS)[s.object] for s, ok in zip(scenes, right["weight 1"], strict=True) if not ok}):
        print("missed with weight 1:", ", ".join(wrong))
    if args.card:
        page = ROOT / "docs" / "controlnet.md"
        before, rest = page.read_text().split("<!-- figures -->")
        page.write_text(f"{before}<!-- figures -->\n{table}\n<!-- end{rest.split('<!-- end')[1]}")
        sheet(rows, len(labels), labels_top=labels, zoom=2).save(ROOT / "docs/images/pocket_control.png", optimize=True)


if __name__ == "__main__":
    main()
