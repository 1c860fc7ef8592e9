"""A training step of maquette against a plain diffusers + PEFT loop and against LyCORIS, on a full-size SD1.5 UNet.

    python -m benchmarks.train_step                              # every table; half an hour
    python -m benchmarks.train_step --px 256 --batch 1 --dtype bf16 --method lora --steps 5

Random weights (a 2.1 GB file, deleted afterwards unless --keep), rank 16 on attention and feed-forward (locon: and
convolutions), AdamW. maquette's side is the product's own path: file, photos and captions in, `Job.gradients`,
clipping and optimizer step. The other side is written as diffusers' example script: UNet, add_adapter or LyCORIS's
modules, noise, timesteps, mean squared error, backward, clipping, AdamW, with latents and text embeddings ready in
memory; bf16 by autocast. Each contestant is a process of its own and they step in turns, so whatever else the machine
does falls on both alike. Figures: median seconds of a step after two to warm up, the process's peak memory, and FLOP/s
reached against a matrix product of the same type.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

WARM_UP = 2
# Of one picture of 512 x 512, forward and back with LoRA on all linear layers, in TFLOP; torch's own counter.
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
TABLES = [
    # (pixels, batch, dtype, method, rival)
    (256, 1, "bf16", "lora", "peft"),
    (256, 1, "fp32", "lora", "peft"),
    (256, 4, "bf16", "lora", "peft"),
    (256, 4, "fp32", "lora", "peft"),
    (512, 1, "bf16", "lora", "peft"),
    (512, 1, "fp32", "lora", "peft"),
    (256, 1, "bf16", "locon", "lycoris"),
    (256, 1, "bf16", "loha", "lycoris"),
    (256, 1, "bf16", "lokr", "lycoris"),
    (256, 1, "fp32", "loha", "lycoris"),
    (256, 1, "fp32", "lokr", "lycoris"),
]


def maquette_step(options: argparse.Namespace, folder: Path) -> Callable[[], float]:
    """The product's own step."""
    import numpy as np
    import torch
    from PIL import Image

    from maquette.config import TrainConfig
    from maquette.stages.training import job as training
    from maquette.stages.training import learning

    photos = folder / f"photos-{options.px}"
    photos.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(options.batch):
        pixels = random.integers(0, 255, (options.px, options.px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    config = TrainConfig.parse(
        {
            "photos": photos, "subject": "ohwx man", "base": str(folder / "sd15-random.safetensors"), "rank": 16,
            "method": options.method, "resolution": options.px, "batch_size": options.batch, "dtype": options.dtype,
            "steps": 1000, "sample_prompts": [], "learning_rate": 1e-4, "device": "cpu",
        }
    )  # fmt: skip
    job = training.prepare(config, folder / "cache", lambda *_: None)
    count = 0

    def step() -> float:
        nonlocal count
        job.optimizer.zero_grad(set_to_none=True)
        loss, _ = job.gradients(count)
        norm = learning.gradient_norm(job.parameters)
        learning.shorten(job.parameters, norm, 1.0)
        job.optimizer.step()
        count += 1
        return float(loss)

    print(json.dumps({"parameters": sum(p.numel() for p in job.parameters)}), flush=True)
    del torch
    return step


def rival_step(options: argparse.Namespace, folder: Path) -> Callable[[], float]:
    """A plain loop around diffusers' UNet, with PEFT's or LyCORIS's adapters."""
    import torch
    from diffusers import DDPMScheduler

    from maquette.families import load

    unet: Any = load(folder / "sd15-random.safetensors").unet  # diffusers' own class; weights float32, read as ours are
    torch.manual_seed(0)
    if options.rival == "peft":
        from peft import LoraConfig

        linear = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
        unet.add_adapter(LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=linear))
        learning = [p for p in unet.parameters() if p.requires_grad]
    else:
        from lycoris import LycorisNetwork, create_lycoris

        convs = ["Conv2d"] if options.method == "locon" else []
        LycorisNetwork.apply_preset(
            {
                "target_module": [
                    "Transformer2DModel",
                    *(["ResnetBlock2D", "Downsample2D", "Upsample2D"] if convs else []),
                ]
            }
        )
        special = {"factor": 8} if options.method == "lokr" else {}
        network = create_lycoris(
            unet, 1.0, linear_dim=16, linear_alpha=16, conv_dim=16, conv_alpha=16, algo=options.method, **special
        )
        network.apply_to()
        learning = [p for p in network.parameters() if p.requires_grad]
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    latents = torch.randn(options.batch, 4, options.px // 8, options.px // 8)
    texts = torch.randn(options.batch, 77, 768)
    half = options.dtype == "bf16"

    def step() -> float:
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (options.batch,))
        noised = schedule.add_noise(latents, noise, t)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = unet(noised, t, texts).sample
        loss = torch.nn.functional.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    print(json.dumps({"parameters": sum(p.numel() for p in learning)}), flush=True)
    return step


def work(options: argparse.Namespace) -> None:
    """A contestant: a step for every line that comes in, its seconds and the peak memory so far for an answer."""
    make = maquette_step if options.worker == "maquette" else rival_step
    step = make(options, options.folder)
    for _ in sys.stdin:
        began = time.perf_counter()
        loss = step()
        seconds = time.perf_counter() - began
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"seconds": seconds, "memory": memory, "loss": loss}), flush=True)


class Contestant:
    """A worker process, told to step when it is its turn."""

    def __init__(self, name: str, options: argparse.Namespace, row: tuple[int, int, str, str, str]) -> None:
        px, batch, dtype, method, rival = row
        command = [
            sys.executable, "-m", "benchmarks.train_step", "--worker", name, "--folder", str(options.folder),
            "--px", str(px), "--batch", str(batch), "--dtype", dtype, "--method", method, "--rival", rival,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.parameters = self._answer()["parameters"]
        self.answers: list[dict[str, float]] = []

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise SystemExit("a contestant ended early")

    def step(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        self.answers.append(self._answer())

    def end(self) -> tuple[float, float]:
        """Median seconds of a step, and peak bytes."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()
        timed = self.answers[WARM_UP:]
        return statistics.median(a["seconds"] for a in timed), timed[-1]["memory"]


def peak(dtype: str) -> float:
    """FLOP/s of a matrix product of 2048 x 2048, the best of ten."""
    import torch

    a = torch.randn(2048, 2048, dtype=getattr(torch, DTYPES[dtype]))
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * 2048**3 / best


def flops(px: int, batch: int) -> float:
    """Of one step of a LoRA, forward and back, counted on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from maquette.families import full_size

    with torch.device("meta"):
        unet = full_size.networks("sd1")["unet"].requires_grad_(False)
        x = torch.zeros(batch, 4, px // 8, px // 8, requires_grad=True)
        texts = torch.zeros(batch, 77, 768)
        with FlopCounterMode(display=False) as counter:
            unet(x, torch.zeros(batch), texts).sample.sum().backward()
    return float(counter.get_total_flops())


def compare(options: argparse.Namespace, row: tuple[int, int, str, str, str]) -> None:
    """One line of the table."""
    px, batch, dtype, method, rival = row
    names = {"maquette": "maquette", "rival": rival}
    contestants = {name: Contestant(name, options, row) for name in names}
    for _ in range(WARM_UP + options.steps):
        for contestant in contestants.values():
            contestant.step()
    ours, theirs = (contestants[name].end() for name in names)
    reached = flops(px, batch) / ours[0]
    print(
        f"| {px} | {batch} | {dtype} | {method} | {ours[0]:.2f} s | {rival}: {theirs[0]:.2f} s "
        f"| **{theirs[0] / ours[0]:.2f}** | {ours[1] / 1e9:.1f} GB | {theirs[1] / 1e9:.1f} GB "
        f"| {reached / 1e9:.0f} GFLOP/s, {reached / peak(dtype):.0%} |",
        flush=True,
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-train-step"))
    parser.add_argument("--px", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dtype", choices=tuple(DTYPES))
    parser.add_argument("--method", choices=("lora", "locon", "loha", "lokr"))
    parser.add_argument("--rival", choices=("peft", "lycoris"))
    parser.add_argument("--steps", type=int, default=9)
    parser.add_argument("--keep", action="store_true", help="keep the file of random weights for another run")
    parser.add_argument("--worker", choices=("maquette", "rival"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    from benchmarks.load import write_model

    options.folder.mkdir(parents=True, exist_ok=True)
    model = options.folder / "sd15-random.safetensors"
    if not model.exists():
        write_model(model)
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    print(f"{date.today()}, {threads} CPU threads, {options.steps} steps of each in turns, medians\n")
    print("| pixels | batch | type | method | maquette | the other | times faster | memory | its memory | reached |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    wanted = (options.px, options.batch, options.dtype, options.method, options.rival)
    for row in TABLES:
        if all(wish is None or wish == value for wish, value in zip(wanted, row, strict=True)):
            compare(options, row)
    if not options.keep:
        model.unlink()


if __name__ == "__main__":
    main()
