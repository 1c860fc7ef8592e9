"""The golden rule of captions, measured: what captions name stays free, what they do not name becomes the subject.

python -m benchmarks.golden_rule [--steps 300] [--pictures 110] [--sheet out/golden_rule.png]

Fourteen pictures of the demo's robot, all on one background, are trained twice: with the background in the captions
and without. Then the robot is asked for on other backgrounds, of the base alone too, as a control. Figures: how often
the asked background is obeyed, and how often the background of the photos comes instead, and how often it comes where
the prompt says nothing of a background, as the pocket judge sees it.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from datetime import date
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

import maquette
from benchmarks.demo_quality import CFG_SCALE, STEPS, draw
from maquette import adapters
from maquette.demo import mascot as demo_mascot
from maquette.families import load
from maquette.families.pocket.judge import judge
from maquette.report.sheet import sheet
from maquette.sampling.images import to_image

SHARED = "green"  # the background of every photo
KINDS = ("captioned", "not captioned")


def write_photos(folder: Path, captioned: bool) -> None:
    """The demo's fourteen poses, all on the shared background."""
    folder.mkdir(parents=True)
    for index, scene in enumerate(demo_mascot.SCENES):
        demo_mascot.photo(index, SHARED).save(folder / f"robot-{index + 1:02}.png")
        caption = scene.caption.rsplit(" on ", 1)[0] + (f" on a {SHARED} background" if captioned else "")
        (folder / f"robot-{index + 1:02}.txt").write_text(caption + "\n", encoding="utf-8")


def train(folder: Path, captioned: bool, steps: int | None) -> adapters.Adapter:
    write_photos(folder / "photos", captioned)
    options = {"steps": steps} if steps else {}
    result = maquette.train(
        folder / "photos", subject=demo_mascot.SUBJECT, out=folder / "run", sample_prompts=[], **options
    )
    return adapters.load(result.file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--pictures", type=int, default=110)
    parser.add_argument("--sheet", type=Path, default=Path("out/golden_rule.png"))
    args = parser.parse_args()
    base, court = load("pocket"), judge()
    others = [colour for colour in demo_mascot.COLOURS if colour != SHARED]
    asked = list(itertools.islice(itertools.cycle(others), args.pictures))
    prompts = [f"a photo of {demo_mascot.SUBJECT} on {_a(colour)} background" for colour in asked]
    rows: list[Image.Image] = []
    columns = min(len(others), len(prompts))
    print(f"{date.today()}, {torch.get_num_threads()} CPU threads, torch {torch.__version__}", end=", ")
    print(f"{len(prompts)} pictures, DDIM {STEPS} steps, CFG {CFG_SCALE:g}\n")
    print(f"| background of the photos, {SHARED} | asked background obeyed | {SHARED} instead | {SHARED} unasked |")
    print("|---|---|---|---|", flush=True)
    silent = [f"a photo of {demo_mascot.SUBJECT}"] * (args.pictures // 2)
    for kind in ("no LoRA", *KINDS):
        texts, lora = [*prompts, *silent], None
        if kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                lora = train(Path(folder), kind == KINDS[0], args.steps)
        else:
            texts = [text.replace(demo_mascot.SUBJECT, "robot") for text in texts]
        pictures: Tensor = draw(base, texts, lora)  # (N, 3, 64, 64)
        named, unasked = (court.name_backgrounds(part) for part in pictures.split([len(prompts), len(silent)]))
        obeyed = sum(a == b for a, b in zip(named, asked, strict=True)) / len(asked)
        instead, always = named.count(SHARED) / len(named), unasked.count(SHARED) / len(unasked)
        print(f"| {kind} | {obeyed:.0%} | {instead:.0%} | {always:.0%} |", flush=True)
        if kind in KINDS:
            rows += [to_image(pictures[i]) for i in [*range(columns), *range(len(prompts), len(prompts) + 3)]]
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    labels = [*asked[:columns], *["(unasked)"] * 3]
    sheet(rows, len(labels), labels_top=labels, labels_left=KINDS, zoom=2).quantize(256).save(args.sheet)


def _a(colour: str) -> str:
    return f"an {colour}" if colour[0] in "aeiou" else f"a {colour}"


if __name__ == "__main__":
    main()
