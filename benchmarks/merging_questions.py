"""The pictures and numbers of docs/questions.md on merging: is a merged LoRA the same as a prompted one, myself in two
models blended, and an inpainting model out of a DreamBooth. All on the pocket base.

python -m benchmarks.merging_questions merged|blended|inpainting [--out out/merging] [--sheet FILE] [--inpainting BASE]
python -m benchmarks.merging_questions merged --lora FILE --subject "zkw bell" [--out out/merging-bell]

What is trained or blended stays in --out, so that a stopped run goes on where it was. `merged` trains on the demo's
photos, or takes a LoRA of another subject. `inpainting` needs the 9-channel base that `python -m
tools.pocket.inpainting` makes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import maquette
from benchmarks.demo_quality import NEIGHBOURS, Probe, draw
from benchmarks.methods import likeness
from maquette.demo import mascot
from maquette.families import load
from maquette.families.pocket.judge import Judge, judge
from maquette.report.sheet import sheet

PROMPT = f"a photo of {mascot.SUBJECT} on a {{}} background"
STYLE = "flat style"
SHARES = (0.3, 0.5, 0.7)
PICTURES = 20


@dataclass(frozen=True)
class Folder:
    """Where trained and made models stay."""

    path: Path
    steps: int

    def trained(self, name: str, **options: Any) -> Path:
        """A model or LoRA, trained unless it is there."""
        file = self.path / f"{name}.safetensors"
        if not file.exists():
            photos = options.pop("photos", None) or self.mascots()
            options = {"subject": mascot.SUBJECT, "steps": self.steps, "sample_prompts": [], **options}
            run = maquette.train(photos, out=self.path / f"{name}-{self.steps}", **options)
            assert run.file is not None
            Path(run.file).replace(file)
        return file

    def mascots(self) -> Path:
        mascot.write_photos(self.path / "photos")
        return self.path / "photos"

    def dreambooth(self, name: str, base: str = "pocket", **options: Any) -> Path:
        """The same of a whole model."""
        return self.trained(
            name, base=base, method="dreambooth", learning_rate=5e-4, save_every_steps=10_000, **options
        )

    def restyled(self) -> Path:
        """Pocket that draws in one style without being told: DreamBooth on pictures whose captions do not name it."""
        photos = self.path / "style"
        if not (photos / "23.txt").exists():
            photos.mkdir(parents=True, exist_ok=True)
            words = ordinary(24)
            drawn = pictures(draw(load("pocket"), [f"{one}, {STYLE}" for one in words]))
            for i, (picture, caption) in enumerate(zip(drawn, words, strict=True)):
                picture.save(photos / f"{i:02}.png")
                (photos / f"{i:02}.txt").write_text(caption)
        return self.dreambooth("restyled", photos=photos, subject="photo", steps=self.steps * 2 // 3)


def colours(count: int) -> list[str]:
    """Backgrounds that no photo of the subject has, by turns."""
    return [*islice(cycle(mascot.COLOURS_UNSEEN), count)]


def objects(count: int) -> list[str]:
    return [*islice(cycle(NEIGHBOURS), count)]


def ordinary(count: int) -> list[str]:
    """Prompts of ordinary objects that name no style."""
    grounds = islice(cycle(judge().colour_names), count)
    return [f"a photo of a {o} on a {c} background" for o, c in zip(objects(count), grounds, strict=True)]


def pictures(pixels: Sequence[Tensor] | Tensor) -> list[Image.Image]:
    return [Image.fromarray((one.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)) for one in pixels]


def merged(folder: Folder, target: Path, lora: Path | None = None, subject: str = mascot.SUBJECT) -> None:
    """Prompted and merged, the same seeds: the difference in 255ths of the range, in float32 and as files of fp16.
    lora: of the subject; otherwise one is trained on the demo's photos.
    """
    lora = lora or folder.trained("me", method="lora", learning_rate=1e-3)
    prompts = [f"a photo of {subject} on a {colour} background" for colour in colours(PICTURES)]
    own = draw(load("pocket"), prompts)
    prompted = draw(load("pocket"), prompts, maquette.adapters.load(lora))
    rows = {"pocket": own, "<lora:me:1>": prompted}
    for dtype in ("fp32", "fp16"):
        file = folder.path / f"merged-{dtype}.safetensors"
        if not file.exists():
            maquette.merge("pocket", [str(lora)], file, dtype=dtype)
        rows[f"merged, {dtype}"] = made = draw(load(str(file)), prompts)
        difference = 255 * (made - prompted).abs()
        print(f"{dtype}: mean {difference.mean():.4f}, largest {difference.max():.2f} of 255", flush=True)
    print(f"what the LoRA changes: mean {255 * (own - prompted).abs().mean():.1f} of 255")
    shown = [image for row in rows.values() for image in pictures(row[:5])]
    tops = [f"on a {colour} background" for colour in colours(5)]
    sheet(shown, 5, tops, [*rows], zoom=2).save(target)


def figures(pixels: dict[str, Tensor], probe: Probe, court: Judge) -> str:
    """What the judge sees: of the subject, and of ordinary objects that were asked for without a style."""
    kept = np.mean([a == b for a, b in zip(court.name_backgrounds(pixels["subject"]), colours(PICTURES), strict=True)])
    right = np.mean([a == b for a, b in zip(court.name_objects(pixels["others"]), objects(PICTURES), strict=True)])
    styled = np.mean([name == STYLE for name in court.name_styles(pixels["others"])])
    like = likeness(load("pocket"), court, pixels["subject"])
    return f"{like:.2f} | {probe.share(pixels['subject']):.0%} | {kept:.0%} | {right:.0%} | {styled:.0%}"


def blended(folder: Folder, target: Path) -> None:
    """Myself in pocket and myself in a restyled pocket, and blends of both."""
    restyled = folder.restyled()
    first, second = folder.dreambooth("in-pocket"), folder.dreambooth("in-restyled", base=str(restyled))
    models = {"pocket": "pocket", "restyled": restyled, "in pocket": first}
    for share in SHARES:
        models[f"blended, {share}"] = file = folder.path / f"blended-{share}.safetensors"
        if not file.exists():
            maquette.blend([first, second], file, alpha=share)
    models["in restyled"] = second
    court, base = judge(), load("pocket")
    probe = Probe(court, base)
    subject = [PROMPT.format(colour) for colour in colours(PICTURES)]
    others = ordinary(PICTURES)
    print("| model | likeness | mascot drawn | background as asked | other objects right | in the style |")
    print("|---|---|---|---|---|---|")
    shown: list[Image.Image] = []
    for name, model in models.items():
        opened = load(str(model))
        drawn = {"subject": draw(opened, subject), "others": draw(opened, others)}
        print(f"| {name} | {figures(drawn, probe, court)} |", flush=True)
        shown += pictures([*drawn["subject"][:4], *drawn["others"][:4]])
    sheet(shown, 8, labels_left=[*models], zoom=2).save(target)


def inpainting(folder: Folder, target: Path, base: Path) -> None:
    """A DreamBooth made to inpaint: the subject painted into the middle of other pictures, all else kept."""
    subject = folder.dreambooth("in-pocket")
    made = folder.path / "me-inpainting.safetensors"
    if not made.exists():
        maquette.blend([base, "pocket"], made, make_inpainting=subject)
    court = judge()
    probe, opened = Probe(court, load("pocket")), load(str(made))
    scenes = draw(load("pocket"), ordinary(8))
    hidden = Image.new("L", (64, 64))
    hidden.paste(255, (12, 12, 52, 52))
    mask, inside = folder.path / "mask.png", torch.from_numpy(np.array(hidden) > 0)
    hidden.save(mask)
    found = []
    with maquette.Pipeline(opened) as pipeline:
        for i, (scene, colour) in enumerate(zip(pictures(scenes), court.colour_names, strict=False)):
            scene.save(folder.path / "scene.png")
            options = {"init_image": folder.path / "scene.png", "mask": str(mask), "denoising_strength": 1.0, "seed": i}
            found.append(pipeline.generate(PROMPT.format(colour), **options, mask_blur=0)[0].image)
    drawn = torch.stack([torch.from_numpy(np.array(f, np.float32) / 255).permute(2, 0, 1) for f in found])
    change = 255 * (drawn - scenes).abs().mean(1)
    print(f"mascot inside the mask: {probe.share(drawn):.0%}; likeness {likeness(load('pocket'), court, drawn):.2f}")
    print(f"mean change inside {change[:, inside].mean():.1f}, outside {change[:, ~inside].mean():.2f} of 255")
    sheet([*pictures(scenes), *found], len(found), labels_left=["before", "repainted"], zoom=2).save(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=("merged", "blended", "inpainting"))
    parser.add_argument("--out", type=Path, default=Path("out/merging"))
    parser.add_argument("--sheet", type=Path, help="the picture; otherwise QUESTION.png in --out")
    parser.add_argument("--steps", type=int, default=150, help="of 8 pictures, of each training")
    parser.add_argument("--inpainting", type=Path, help="pocket-inpainting.safetensors")
    parser.add_argument("--lora", type=Path, help="of another subject, for `merged`")
    parser.add_argument("--subject", default=mascot.SUBJECT, help="its words")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder, target = Folder(args.out, args.steps), args.sheet or args.out / f"{args.question}.png"
    if args.question == "inpainting":
        if args.inpainting is None:
            parser.error("name the 9-channel base with --inpainting")
        inpainting(folder, target, args.inpainting)
    elif args.question == "merged":
        merged(folder, target, args.lora, args.subject)
    else:
        blended(folder, target)


if __name__ == "__main__":
    main()
