"""Drawing against diffusers' own pipeline on the same weights: seconds a picture in turns, start to first picture and
peak memory of fresh processes, and a switch between two LoRAs.

    python -m benchmarks.generate --base pocket
    python -m benchmarks.generate --base sd1 --pixels 256 --dtype fp32 --folder /tmp/drawing

sd1 is a full-size Stable Diffusion 1.5 of random weights (2.1 GB in the folder, kept). Pictures are drawn with DDIM and
guidance 7. Ours reads the prompt and encodes it each time; the pipeline is given ready text features, which favours it.
Neither writes files. The peak is that of the whole process.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from maquette import Pipeline, families
from maquette.families.base import BaseModel

PROMPT = "a photo of a cat on a red background"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
FIRST = """
import json, sys, time
import torch
began = time.time()
who, base, folder, pixels, steps, dtype, spawned = sys.argv[1:]
size = {"width": int(pixels), "height": int(pixels)}
if who == "maquette":
    import maquette
    pipeline = maquette.Pipeline(base, dtype=dtype)
    pipeline.generate("a cat", steps=int(steps), seed=1, cfg_scale=7, **size)
else:
    from diffusers import StableDiffusionPipeline
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    left_out = {"tokenizer": None, "text_encoder": None, "safety_checker": None, "feature_extractor": None}
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=kind, **left_out)
    pipe.set_progress_bar_config(disable=True)
    told = torch.zeros(1, 77, pipe.unet.config.cross_attention_dim, dtype=kind)
    pipe(prompt_embeds=told, negative_prompt_embeds=told, num_inference_steps=int(steps), guidance_scale=7.0, **size)
seconds = time.time() - float(spawned)
# getrusage would tell the peak of the process that began this one, where that is larger
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"seconds": seconds, "peak": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=["pocket", "sd1"], default="pocket")
    parser.add_argument("--pixels", type=int)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/drawing"))
    parser.add_argument("--only", choices=["speed", "first", "switch"])
    args = parser.parse_args()
    source = model(args.base, args.folder)
    base = families.load(source, DTYPES[args.dtype], "cpu")
    pixels = args.pixels or base.spec.native_size
    told = f"{args.base}, {pixels} px, {args.dtype}, {args.steps} steps, {torch.get_num_threads()} threads"
    if args.only in (None, "speed"):
        print(f"{told}, batch {args.batch}: {speed(base, pixels, args)}", flush=True)
    if args.only in (None, "switch") and args.base == "sd1":
        print(f"{told}: {switch(base, args.folder, args.turns)}", flush=True)
    if args.only in (None, "first"):
        theirs_of(base).save_pretrained(args.folder / f"pipeline-{args.base}")
        del base
        print(f"{told}: {first(source, pixels, args)}", flush=True)


def model(name: str, folder: Path) -> str:
    """What families.load opens; a file of random weights is written once."""
    if name == "pocket":
        return name
    from .load import write_model

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "sd1.safetensors").exists():
        write_model(folder / "sd1.safetensors")
    return str(folder / "sd1.safetensors")


def theirs_of(base: BaseModel, text: bool = False) -> Any:
    """diffusers' pipeline around the very weights of a base; text: with a copy of its text encoder."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    from . import theirs

    scheduler = DDIMScheduler.from_config(base.scheduler_config)
    networks: dict[str, Any] = {"unet": theirs.unet(base.unet), "vae": theirs.vae(base.vae), "scheduler": scheduler}
    left_out: dict[str, Any] = dict.fromkeys(("tokenizer", "text_encoder", "safety_checker", "feature_extractor"))
    if text:
        left_out["text_encoder"] = theirs.text_encoder(base.text_encoders[0])
    pipeline = StableDiffusionPipeline(**networks, **left_out, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def speed(base: BaseModel, pixels: int, args: argparse.Namespace) -> str:
    """Medians of turns, one of ours and one of theirs after the other."""
    pipeline, ours = theirs_of(base), Pipeline(base)
    told = torch.zeros(args.batch, 77, pipeline.unet.config.cross_attention_dim, dtype=DTYPES[args.dtype])
    size = {"width": pixels, "height": pixels}

    def draw_ours() -> None:
        ours.generate(PROMPT, steps=args.steps, seed=1, cfg_scale=7.0, batch_size=args.batch, **size)

    def draw_theirs() -> None:
        steps = {"num_inference_steps": args.steps, "guidance_scale": 7.0}
        pipeline(prompt_embeds=told, negative_prompt_embeds=told, **steps, **size)

    return in_turns(draw_ours, draw_theirs, args.turns, "a call")


def in_turns(ours: Callable[[], None], theirs: Callable[[], None], turns: int, what: str) -> str:
    """Both once to warm up, then in turns; the medians, and the median of the ratios of each turn."""
    found = [(_timed(ours), _timed(theirs)) for _ in range(turns + 1)][1:]
    told = []
    for clock, name in enumerate(("", " of processor time")):
        pairs = [(mine[clock], other[clock]) for mine, other in found]
        mine, other = (statistics.median(column) for column in zip(*pairs, strict=True))
        ratio = statistics.median(b / a for a, b in pairs)
        told.append(f"maquette {mine:.3g} s{name} {what}, diffusers {other:.3g} s, {ratio:.2f} times faster")
    return "; ".join(told)


def _timed(work: Callable[[], None]) -> tuple[float, float]:
    """Seconds by the clock, and of all the process's threads."""
    began = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began[0], time.process_time() - began[1]


def first(source: str, pixels: int, args: argparse.Namespace) -> str:
    """Fresh processes in turns, from their start to the first picture; medians, and the largest of their memory."""
    found: dict[str, list[dict[str, float]]] = {"maquette": [], "diffusers": []}
    folder = str(args.folder / f"pipeline-{args.base}")
    for _ in range(args.turns):
        for who, runs in found.items():
            words = [who, source, folder, str(pixels), str(args.steps), args.dtype, str(time.time())]
            done = subprocess.run([sys.executable, "-c", FIRST, *words], capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    told = []
    for who, runs in found.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        told.append(f"{who} {seconds:.3g} s to the first picture, peak {max(run['peak'] for run in runs) / 1e6:.2f} GB")
    return "; ".join(told)


def switch(base: BaseModel, folder: Path, turns: int) -> str:
    """From LoRA to LoRA of rank 16, three in turn: each read and folded anew, as diffusers reads and unloads them; each
    folded anew of the files that ours holds; and where those before stay beside as far as there is room.
    """
    from maquette import adapters
    from maquette.sampling import hot_loras
    from maquette.sampling.hot_loras import HotLoras
    from maquette.sampling.lora_tags import Wish
    from maquette.sampling.read_once import ReadOnce

    from .low_rank import random_lora

    files = [folder / f"{name}.safetensors" for name in ("one", "two", "three")]
    for file in files:
        if not file.exists():
            random_lora("sd1", 16).save(file)
    pipeline, hot, shelf = theirs_of(base, text=True), HotLoras(base), ReadOnce(adapters.load)

    def with_room(room: int, held: bool = True) -> str:
        ours, theirs = itertools.cycle(files), itertools.cycle(files)

        def switch_ours() -> None:
            hot.set([Wish((shelf if held else adapters.load)(next(ours)), 1.0, 1.0)])

        def switch_theirs() -> None:
            pipeline.unload_lora_weights()
            pipeline.load_lora_weights(str(next(theirs)))

        with mock.patch.object(hot_loras, "room", lambda: room):
            for _ in files:
                switch_ours()
            return in_turns(switch_ours, switch_theirs, turns, "a switch")

    own = hot_loras.room()
    ways = {
        "read and folded": (0, False), "folded": (0, True), f"{own / 1e9:.1f} GB kept beside": (own, True),
    }  # fmt: skip
    return "switch of a LoRA of rank 16: " + "; ".join(f"{name}: {with_room(*way)}" for name, way in ways.items())


if __name__ == "__main__":
    main()
