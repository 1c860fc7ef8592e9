"""How good is the pocket base? 500 fixed prompts judged by its image tower, and the autoencoder's PSNR on fresh scenes.

python -m benchmarks.pocket_quality SPRITES [--prompts 500] [--card]
Run as `python -m benchmarks.pocket_quality` from the checkout. SPRITES is the sprite folder the base was trained from
(for fresh scenes). --card writes the figures into the model card and the sample sheet into docs/images.
"""

from __future__ import annotations

import argparse
import itertools
import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import judge
from maquette.sampling.loop import sample
from tools.pocket.scenes import COLOURS, DRAWN, STYLES, Sprites, with_article
from tools.pocket.towers import accuracy
from tools.pocket.vae import psnr

ROOT = Path(__file__).parent.parent
CFG_SCALE, STEPS, BATCH = 4.0, 20, 25


def fixed_prompts(count: int) -> list[tuple[str, str, str]]:
    """(object, colour, style words): every object equally often, colours and styles shuffled by a fixed seed."""
    rng = np.random.default_rng(2026)
    pairs = list(itertools.product(COLOURS, STYLES.values()))
    return [(o, *pairs[rng.integers(len(pairs))]) for o in itertools.islice(itertools.cycle(DRAWN), count)]


def prompt_of(thing: str, colour: str, style: str) -> str:
    return f"a photo of {with_article(thing)} on {'an' if colour == 'orange' else 'a'} {colour} background, {style}"


@torch.no_grad()
def draw(base: BaseModel, prompts: list[str], first_seed: int = 0) -> torch.Tensor:
    """(N, 3, 64, 64) in [0, 1], one picture a prompt, seeds counted up from first_seed."""
    pictures = []
    size = base.spec.native_size
    for i in range(0, len(prompts), BATCH):
        part = prompts[i : i + BATCH]
        latents = sample(
            base, base.encode_text(part), base.encode_text([""] * len(part)), sampler="DDIM", steps=STEPS,
            cfg_scale=CFG_SCALE, seeds=list(range(first_seed + i, first_seed + i + len(part))), width=size, height=size,
        )  # fmt: skip
        pictures.append(base.decode(latents).cpu())
    return torch.cat(pictures)


def sheet(pictures: torch.Tensor, columns: int = 16, zoom: int = 2) -> Image.Image:
    """Pictures side by side, row after row."""
    size = pictures.shape[-1]
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * size, rows * size))
    for i, p in enumerate(pictures):
        picture = Image.fromarray((p.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8))
        canvas.paste(picture, (i % columns * size, i // columns * size))
    return canvas.resize((canvas.width * zoom, canvas.height * zoom), Image.Resampling.BICUBIC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sprites", type=Path)
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--sheet", type=Path, default=Path("out/pocket_sheet.png"))
    parser.add_argument("--card", action="store_true")
    args = parser.parse_args()
    base, court, sprites = load("pocket"), judge(), Sprites.load(args.sprites)
    head_objects, head_styles = accuracy(court.tower, sprites)
    decibels = psnr(base.vae, sprites)
    asked = fixed_prompts(args.prompts)
    pictures = draw(base, [prompt_of(*a) for a in asked])
    probabilities = court.object_probabilities(pictures)
    wanted = torch.tensor([court.objects.index(a[0]) for a in asked])
    top1 = probabilities.argmax(1) == wanted
    top5 = (probabilities.topk(5).indices == wanted[:, None]).any(1)
    background = [b == a[1] for b, a in zip(court.name_backgrounds(pictures), asked, strict=True)]
    style = [s == a[2] for s, a in zip(court.name_styles(pictures), asked, strict=True)]
    figures = {
        "objects drawn": len(DRAWN),
        "styles": len(STYLES),
        "VAE PSNR on held-out scenes": f"{decibels:.2f} dB",
        "object head on fresh scenes": f"{head_objects:.1%}",
        "style head on fresh scenes": f"{head_styles:.1%}",
        f"asked object right ({args.prompts} prompts)": f"{top1.float().mean():.1%}",
        "asked object among the first five": f"{top5.float().mean():.1%}",
        "background right": f"{np.mean(background):.1%}",
        "style right": f"{np.mean(style):.1%}",
    }
    machine = f"{torch.get_num_threads()} CPU threads, {platform.machine()}, torch {torch.__version__}"
    lines = [f"| {k} | {v} |" for k, v in figures.items()]
    table = "\n".join(
        [
            f"DDIM, {STEPS} steps, CFG {CFG_SCALE:g}; {date.today()}, {machine}.",
            "",
            "| measure | figure |",
            "|---|---|",
            *lines,
        ]
    )
    print(table)
    wrong = sorted({asked[i][0] for i in (~top1).nonzero()[:, 0].tolist()})
    print("objects missed at least once:", ", ".join(wrong))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet(pictures[: 3 * len(DRAWN)]).save(args.sheet)
    if args.card:
        write_card(table, pictures[: len(DRAWN)])


def write_card(table: str, pictures: torch.Tensor) -> None:
    """Put the table between the card's markers and the sample sheet into docs/images."""
    card = ROOT / "src/maquette/families/pocket/CARD.md"
    before, rest = card.read_text().split("<!-- figures -->")
    _, after = rest.split("<!-- end of figures -->")
    card.write_text(f"{before}<!-- figures -->\n{table}\n<!-- end of figures -->{after}")
    sheet(pictures).save(ROOT / "docs/images/pocket_sheet.png", optimize=True)


if __name__ == "__main__":
    main()
