"""LoRA or DreamBooth? Every method learns the demonstration's mascot from the same fourteen pictures, in as many steps.

Each method leaves one result file, so that a stopped benchmark goes on where it was; the table is printed from whatever
is done. A result counts only for the pocket base it was made with. With --rates each method learns at three learning
rates first, so that none is judged by a rate that suits another; CASES has the rates that came out best.

python -m benchmarks.methods [--rates | --options] [--only "lora;dora"] [--out out/methods] [--table]
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import shutil
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.demo_quality import NEIGHBOURS, Probe, draw, to_pixels
from maquette import adapters
from maquette.config import TrainConfig
from maquette.demo import mascot as demo_mascot
from maquette.families import load
from maquette.families.base import BaseModel
from maquette.families.pocket.judge import Judge, judge
from maquette.methods import METHODS
from maquette.report.sheet import sheet
from maquette.sampling.apply_loras import apply_loras
from maquette.stages import regularize, train

STEPS = 150
PICTURES = 30  # of the subject; half as many of the class word and of ordinary objects
CLASS_PICTURES = 56  # four for each photo
SHOWN = 6


@dataclass(frozen=True)
class Case:
    """A method and what it needs to learn well in STEPS steps of 8 pictures."""

    method: str
    settings: dict[str, Any] = field(default_factory=dict)
    class_pictures: bool = False


CASES = {  # each at the rate that came out best in RATES; DoRA and pivotal tuning at LoRA's
    "lora": Case("lora", {"learning_rate": 1e-3}),
    "lora, regularization images": Case("lora", {"learning_rate": 1e-3}, class_pictures=True),
    "lora, prior preservation": Case("lora", {"learning_rate": 1e-3, "prior_preservation": True}),
    "locon": Case("locon", {"learning_rate": 3e-3}),
    "dora": Case("dora", {"learning_rate": 1e-3}),
    "loha": Case("loha", {"learning_rate": 1e-3}),
    "lokr": Case("lokr", {"learning_rate": 3e-3}),
    "dreambooth": Case("dreambooth", {"learning_rate": 5e-4}),
    "dreambooth, regularization images": Case("dreambooth", {"learning_rate": 5e-4}, class_pictures=True),
    "textual-inversion": Case("textual-inversion", {"embedding_learning_rate": 1e-2}),
    "pivotal": Case("pivotal", {"learning_rate": 1e-3, "embedding_learning_rate": 1e-2}),
}
RATES = {
    "lora": (1e-3, 3e-3, 9e-3),
    "locon": (1e-3, 3e-3, 9e-3),
    "loha": (3e-4, 1e-3, 3e-3),
    "lokr": (1e-3, 3e-3, 9e-3),
    "dreambooth": (1.5e-4, 5e-4, 1.5e-3),
    "textual-inversion": (3e-3, 1e-2, 3e-2),
}


OPTIONS = {  # does min-SNR weighting help?
    "lora, min-SNR": Case("lora", {"learning_rate": 1e-3, "min_snr_gamma": 5.0}),
    "lora, all timesteps alike": Case("lora", {"learning_rate": 1e-3, "min_snr_gamma": 0.0}),
    "dreambooth, min-SNR": Case("dreambooth", {"learning_rate": 5e-4, "min_snr_gamma": 5.0}),
    "dreambooth, all timesteps alike": Case("dreambooth", {"learning_rate": 5e-4, "min_snr_gamma": 0.0}),
    "textual-inversion, min-SNR": Case("textual-inversion", {"embedding_learning_rate": 1e-2, "min_snr_gamma": 5.0}),
    "textual-inversion, all timesteps alike": Case(
        "textual-inversion", {"embedding_learning_rate": 1e-2, "min_snr_gamma": 0.0}
    ),
}


def trials() -> dict[str, Case]:
    """Every method at each of its rates."""
    key = {"textual-inversion": "embedding_learning_rate"}
    return {
        f"{method} at {rate:g}": Case(method, {key.get(method, "learning_rate"): rate})
        for method, rates in RATES.items()
        for rate in rates
    }


def run_case(case: Case, folder: Path, photos: Path) -> tuple[dict[str, Any], Path]:
    """Train in a fresh folder. Returns what is known of the training, and the file."""
    if folder.exists():
        shutil.rmtree(folder)  # what an interrupted benchmark left
    reg = None
    if case.class_pictures:
        reg = folder.with_name("class-scenes")
        if not reg.exists():
            prompts = [f"a photo of a robot on a {colour} background" for colour in demo_mascot.COLOURS_SEEN]
            regularize.run(regularize.RegularizeConfig(out=reg, prompt=prompts, count=CLASS_PICTURES, seed=1))
    values = {
        "photos": photos,
        "subject": demo_mascot.SUBJECT,
        "out": folder,
        "steps": STEPS,
        "method": case.method,
        "reg": reg,
        "save_every_steps": STEPS,
        "sample_prompts": [],
    }
    result = train.run(TrainConfig.parse({k: v for k, v in (values | case.settings).items() if v is not None}))
    if result.file is None:
        raise SystemExit("the training was stopped")
    size = Path(result.file).stat().st_size
    return {"bytes": size, "images_per_second": result.images_per_second, "seconds": result.seconds}, Path(result.file)


def opened(base: BaseModel, method: str, file: Path) -> AbstractContextManager[Any]:
    """The base with what was learned, within the block."""
    if METHODS[method].product == "embedding":
        from maquette.adapters import embeddings
        from maquette.sampling.apply_embeddings import apply_embeddings

        return apply_embeddings(base, [embeddings.load(file, name=demo_mascot.SUBJECT)])
    return apply_loras(base, [(adapters.load(file), 1.0, 1.0)])


def measure(base: BaseModel, probe: Probe, court: Judge, pictures: int) -> tuple[dict[str, float], Tensor]:
    """Figures of a model that is in place: how often the mascot is drawn, and what else changed."""
    unseen = list(itertools.islice(itertools.cycle(demo_mascot.COLOURS_UNSEEN), pictures))
    few = pictures // 2
    subject = draw(base, [f"a photo of {demo_mascot.SUBJECT} on a {c} background" for c in unseen])
    word = draw(base, [f"a photo of a robot on a {c} background" for c in unseen[:few]])
    wanted = list(itertools.islice(itertools.cycle(NEIGHBOURS), few))
    others = draw(
        base, [f"a photo of a {n} on a {c} background" for n, c in zip(wanted, court.colour_names * few, strict=False)]
    )
    return {
        "mascot": probe.share(subject),
        "likeness": likeness(base, court, subject),
        "background": _agree(court.name_backgrounds(subject), unseen),
        "leak": probe.share(word),
        "others": _agree(court.name_objects(others), wanted),
    }, subject[:SHOWN]


def likeness(base: BaseModel, court: Judge, pictures: Tensor) -> float:
    """Mean cosine, as the image tower sees them, of pictures and mascots drawn by code on the same backgrounds.

    Finer than the probe, which only tells mascots from ordinary objects. Both went through the base's VAE.
    """
    real = drawn_mascots(base, court, 1000)
    seen = court.embed(pictures)
    return float(np.mean([(row @ real[i % len(real)].T).mean().item() for i, row in enumerate(seen)]))


def drawn_mascots(base: BaseModel, court: Judge, seed: int) -> list[Tensor]:
    """Features of eight mascots drawn by code on each colour, through the base's VAE."""
    found = []
    for i, colour in enumerate(demo_mascot.COLOURS_UNSEEN):
        pixels = to_pixels([demo_mascot.fresh(seed + 20 * i + k, colour, 64) for k in range(8)])
        found.append(court.embed(base.decode(base.encode_images(pixels * 2 - 1)[0])))
    return found


@torch.no_grad()
def ceiling(base: BaseModel, court: Judge) -> float:
    """The likeness of mascots drawn by code to other mascots drawn by code: what no method can pass."""
    pairs = zip(drawn_mascots(base, court, 5000), drawn_mascots(base, court, 1000), strict=True)
    return float(np.mean([(mine @ real.T).mean().item() for mine, real in pairs]))


def _agree(seen: list[str], wanted: list[str]) -> float:
    return float(np.mean([a == b for a, b in zip(seen, wanted, strict=True)]))


def keep(folder: Path, name: str, result: dict[str, Any], pictures: Tensor) -> None:
    """One result file and the pictures of a case; the result last, so that it stands for both."""
    array = (pictures.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    for i, pixels in enumerate(array):
        Image.fromarray(pixels).save(folder / f"{name}-{i}.png")
    part = folder / f"{name}.part"
    part.write_text(json.dumps(result, indent=1))
    part.replace(folder / f"{name}.json")


def done(folder: Path, base: BaseModel, cases: dict[str, Case]) -> dict[str, dict[str, Any]]:
    """Results that were made with this base and these settings."""
    found = {}
    for name in ("base", *cases):
        file = folder / f"{name}.json"
        if file.exists():
            result = json.loads(file.read_text())
            if result["key"] == key_of(base, cases.get(name)):
                found[name] = result
    return found


def key_of(base: BaseModel, case: Case | None) -> str:
    """What a result depends on."""
    return hashlib.sha256(f"{base.content_hash} {STEPS} {PICTURES} {case}".encode()).hexdigest()[:16]


def table(results: dict[str, dict[str, Any]]) -> str:
    """One row per method. Speeds are in the result files only: they say something on an idle machine alone."""
    lines = [
        "| method | file | likeness | mascot drawn | background kept | leak into the class word "
        "| other objects right |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, r in results.items():
        size = _size(r["bytes"]) if "bytes" in r else "–"
        shares = " | ".join(f"{r[key]:.0%}" for key in ("mascot", "background", "leak", "others"))
        lines.append(f"| {name} | {size} | {r['likeness']:.2f} | {shares} |")
    return "\n".join(lines)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def picture(folder: Path, results: dict[str, dict[str, Any]], target: Path) -> None:
    """One row per method, the same prompts and seeds."""
    images = [Image.open(folder / f"{name}-{i}.png") for name in results for i in range(SHOWN)]
    tops = [f"on a {c} background" for c in itertools.islice(itertools.cycle(demo_mascot.COLOURS_UNSEEN), SHOWN)]
    target.parent.mkdir(parents=True, exist_ok=True)
    sheet(images, SHOWN, tops, list(results), zoom=2).save(target)


def rate_table(results: dict[str, dict[str, Any]]) -> str:
    """Likeness and, in brackets, other objects right, at each rate of each method."""
    lines = ["| method | low | middle | high |", "|---|---|---|---|"]
    for method, rates in RATES.items():
        cells = []
        for rate in rates:
            r = results.get(f"{method} at {rate:g}")
            cells.append(f"{rate:g}: {r['likeness']:.2f} ({r['others']:.0%})" if r else f"{rate:g}: –")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


@cache
def room() -> tuple[BaseModel, Judge, Probe]:
    """The base and who judges, made once."""
    base, court = load("pocket"), judge()
    return base, court, Probe(court, base)


@torch.no_grad()
def _base_result(base: BaseModel, court: Judge, probe: Probe, folder: Path) -> None:
    figures, pictures = measure(base, probe, court, PICTURES)
    keep(folder, "base", {"key": key_of(base, None), **figures}, pictures)


def bench(name: str, case: Case | None, folder: Path, pictures: int) -> None:
    """One case, from photos to figures; without a case, the base's own."""
    base, court, probe = room()
    if case is None:
        return _base_result(base, court, probe, folder)
    photos = folder / "photos"
    demo_mascot.write_photos(photos)
    began = time.perf_counter()
    trained, file = run_case(case, folder / "runs" / name.replace(", ", "-").replace(" ", "-"), photos)
    if METHODS[case.method].product == "model":
        model, inside = load(str(file)), nullcontext()
    else:
        model, inside = base, opened(base, case.method, file)
    with inside, torch.no_grad():
        figures, shown = measure(model, probe, court, pictures)
    result = {"key": key_of(base, case), "threads": torch.get_num_threads(), **trained, **figures}
    keep(folder, name, result, shown)
    print(f"{name}: {figures}, {time.perf_counter() - began:.0f} s", flush=True)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="cases, with ; between them")
    parser.add_argument("--rates", action="store_true", help="each method at three rates instead")
    parser.add_argument("--options", action="store_true", help="with and without min-SNR instead")
    parser.add_argument("--out", type=Path, default=Path("out/methods"))
    parser.add_argument("--sheet", type=Path, default=Path("out/methods.png"))
    parser.add_argument("--table", action="store_true", help="train nothing, print what is done")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cases = trials() if args.rates else OPTIONS if args.options else CASES
    aside = args.rates or args.options
    chosen = args.only.split(";") if args.only else [*cases] if aside else ["base", *cases]
    for name in chosen:
        if not args.table and name not in done(args.out, load("pocket"), cases):
            bench(name, cases.get(name), args.out, PICTURES * 2 // 3 if aside else PICTURES)
    results = done(args.out, load("pocket"), cases)
    told = rate_table(results) if args.rates else table(results)
    print(f"Mascots drawn by code among themselves: {ceiling(load('pocket'), judge()):.2f}")
    print(f"{date.today()}, torch {torch.__version__}, {STEPS} steps of 8 pictures\n\n{told}")
    if results and not aside:
        picture(args.out, results, args.sheet)


if __name__ == "__main__":
    main()
