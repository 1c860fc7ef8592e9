"""What the demo's LoRA learned, kept and leaked, judged without eyes. Trains the demo LoRA first unless one is given.

python -m benchmarks.demo_quality [--lora runs/demo/demo.safetensors] [--sheet out/demo_quality.png]
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from maquette import adapters
from maquette.demo import mascot as demo_mascot
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import Judge, judge
from maquette.report.sheet import sheet
from maquette.sampling.apply_loras import apply_loras
from maquette.sampling.loop import sample
from maquette.stages import demo

CFG_SCALE, STEPS, BATCH = 4.0, 20, 20
NEIGHBOURS = ("cat", "dog", "car", "house", "snowman", "camera", "gift", "sailboat", "frog", "star")  # ordinary objects
ANYTHING = 64  # pictures of ordinary objects that the probe learns from


@torch.no_grad()
def draw(base: BaseModel, prompts: list[str], lora: adapters.Adapter | None = None, seed: int = 500) -> Tensor:
    """(N, 3, 64, 64) in [0, 1]; seeds count up, so that the same prompts with and without LoRA share their noise."""
    size, pictures = base.spec.native_size, []
    with apply_loras(base, [(lora, 1.0, 1.0)] if lora else []):
        for i in range(0, len(prompts), BATCH):
            part = prompts[i : i + BATCH]
            seeds = list(range(seed + i, seed + i + len(part)))
            cond, uncond = base.encode_text(part), base.encode_text([""] * len(part))
            how = {"sampler": "DDIM", "steps": STEPS, "cfg_scale": CFG_SCALE, "width": size, "height": size}
            pictures.append(base.decode(sample(base, cond, uncond, seeds=seeds, **how)))
    return torch.cat(pictures)


def to_pixels(images: list[Image.Image]) -> Tensor:
    """Pictures of 64 x 64 -> (N, 3, 64, 64) in [0, 1]."""
    return torch.stack(
        [torch.from_numpy(np.asarray(i.convert("RGB"), np.float32) / 255).permute(2, 0, 1) for i in images]
    )


class Probe:
    """Logistic regression on the image tower's features: the mascot, freshly drawn by code, against everything else."""

    def __init__(self, court: Judge, base: BaseModel) -> None:
        colours = itertools.cycle(demo_mascot.COLOURS)
        drawn = to_pixels([demo_mascot.fresh(seed, next(colours), 64) for seed in range(200)])
        with torch.no_grad():
            mascots = torch.cat([base.decode(base.encode_images(p * 2 - 1)[0]) for p in drawn.split(25)])
        names = itertools.islice(itertools.cycle(court.objects), ANYTHING * 2)
        others = draw(
            base,
            [f"a photo of a {n} on a {c} background" for n, c in zip(names, itertools.cycle(court.colour_names))],
            seed=9000,
        )
        self.court = court
        x, y = (
            self._features(torch.cat([mascots, others])),
            torch.cat([torch.ones(len(mascots)), torch.zeros(len(others))]),
        )
        self.mean, self.std = x.mean(0), x.std(0) + 1e-6
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        fit, held = order[: len(x) * 3 // 4], order[len(x) * 3 // 4 :]
        self.weight = torch.zeros(x.shape[1], requires_grad=True)
        self.bias = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([self.weight, self.bias], max_iter=100)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(self._logit(x[fit]), y[fit])
            loss = loss + 1e-2 * self.weight.square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        self.accuracy = ((self._logit(x[held]) > 0).float() == y[held]).float().mean().item()

    @torch.no_grad()
    def _features(self, pixels: Tensor) -> Tensor:
        return self.court.tower.features(pixels * 2 - 1)

    def _logit(self, features: Tensor) -> Tensor:
        return (features - self.mean) / self.std @ self.weight + self.bias

    @torch.no_grad()
    def share(self, pixels: Tensor) -> float:
        """Share of pictures that show the mascot."""
        return (self._logit(self._features(pixels)) > 0).float().mean().item()


def train_demo(folder: Path) -> tuple[Path, float]:
    """The demo's own LoRA, trained as `make demo` trains it; and the seconds its training took, files included."""
    result = demo.run(demo.DemoConfig(out=folder / "demo"))
    if result.file is None:
        raise SystemExit("the demo was stopped")
    return Path(result.file), result.training_seconds


def measure(lora: adapters.Adapter, base: BaseModel, court: Judge) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Figures in words, and the pictures behind them."""
    probe = Probe(court, base)
    asked = [c for c in demo_mascot.COLOURS_UNSEEN for _ in range(40 // len(demo_mascot.COLOURS_UNSEEN))]
    subject = [f"a photo of {demo_mascot.SUBJECT} on a {c} background" for c in asked]
    class_word = [f"a photo of a robot on a {c} background" for c in asked]
    ordinary = [
        f"a photo of a {n} on a {c} background" for n, c in itertools.product(NEIGHBOURS, court.colour_names[:4])
    ]
    wanted = [n for n, _ in itertools.product(NEIGHBOURS, court.colour_names[:4])]
    pictures = {
        f"{name}, {who}": draw(base, prompts, use)
        for name, prompts in (("subject", subject), ("class word", class_word), ("ordinary", ordinary))
        for who, use in (("base", None), ("LoRA", lora))
    }

    def kept(pixels: Tensor, colours: list[str]) -> float:
        return float(np.mean([a == b for a, b in zip(court.name_backgrounds(pixels), colours, strict=True)]))

    def right(pixels: Tensor) -> float:
        return float(np.mean([a == b for a, b in zip(court.name_objects(pixels), wanted, strict=True)]))

    def likeness(name: str) -> float:
        return (court.embed(pictures[f"{name}, base"]) * court.embed(pictures[f"{name}, LoRA"])).sum(1).mean().item()

    def pair(measure: Callable[[str], float], name: str) -> str:
        return f"{measure(f'{name}, base'):.0%} / {measure(f'{name}, LoRA'):.0%}"

    def seen(name: str) -> float:
        return probe.share(pictures[name])

    figures = {
        "probe right on held-out pictures": f"{probe.accuracy:.1%}",
        f"mascot in {len(subject)} pictures on unseen colours: base / LoRA": pair(seen, "subject"),
        "asked background kept, colours in no photo: LoRA": f"{kept(pictures['subject, LoRA'], asked):.1%}",
        'leak into the class word ("a robot"): base / LoRA': pair(seen, "class word"),
        "leak into ordinary objects, LoRA loaded but not named": f"{seen('ordinary, LoRA'):.0%}",
        "ordinary object right: base / LoRA loaded": pair(lambda name: right(pictures[name]), "ordinary"),
        "cosine of base's and LoRA's pictures, class word": f"{likeness('class word'):.2f}",
        "cosine of base's and LoRA's pictures, ordinary objects": f"{likeness('ordinary'):.2f}",
    }
    return figures, pictures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lora", type=Path)
    parser.add_argument("--sheet", type=Path, default=Path("out/demo_quality.png"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, seconds = (args.lora, None) if args.lora else train_demo(Path(folder))
        lora = adapters.load(path)
    base, court = load("pocket"), judge()
    figures, pictures = measure(lora, base, court)
    if seconds is not None:
        figures["training with encoding, samples and files"] = f"{seconds:.0f} s"
    machine = f"{torch.get_num_threads()} CPU threads, torch {torch.__version__}"
    print(f"{date.today()}, {machine}, DDIM {STEPS} steps, CFG {CFG_SCALE:g}\n")
    print("| measure | figure |\n|---|---|\n" + "\n".join(f"| {k} | {v} |" for k, v in figures.items()))
    rows = [
        Image.fromarray((p.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
        for v in pictures.values()
        for p in v[::4][:10]
    ]
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows, 10, labels_left=list(pictures), zoom=2).save(args.sheet)


if __name__ == "__main__":
    main()
