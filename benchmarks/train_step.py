"""A training step of maquette against a plain diffusers + PEFT loop and against LyCORIS, on a full-size UNet.

    python -m benchmarks.train_step                              # every line; half an hour
    python -m benchmarks.train_step --px 256 --batch 1 --dtype bf16 --method lora --steps 5
    python -m benchmarks.train_step --device cuda                # the lines of a graphics card
    python -m benchmarks.train_step --px 256 --dtype bf16 --ours maquette,compiled   # what a setting brings
    python -m benchmarks.train_step --against ../older --method lora   # this checkout against an older one

Random weights (a file of 2.1 GB, SDXL's 6.9 GB, deleted afterwards unless --keep), rank 16 on attention and feed-
forward (locon: and convolutions), AdamW. maquette's side is the product's own path: file, photos and captions in,
`Job.gradients`, clipping and optimizer step. The other side is written as diffusers' example script: UNet, add_adapter
or LyCORIS's modules, noise, timesteps, mean squared error, backward, clipping, AdamW, with latents and text embeddings
ready in memory; for bf16 the frozen weights are bf16, with autocast around ("peft-autocast": fp32 weights under
autocast). Each contestant is a process of its own and they take turns, so whatever else the machine does falls on all
alike; --against puts an older checkout in the other loop's place. On CUDA a turn is many steps and ends when the device
is done. Figures: median seconds of a step after two turns to warm up, the process's (CUDA: the device's) peak memory,
and FLOP/s reached against a matrix product of that type.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

WARM_UP = 2
TURN = {"cpu": 1, "cuda": 20}  # steps of a turn
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
LINES = {
    # (family, pixels, batch, dtype, method, rival)
    "cpu": [
        ("sd1", 256, 1, "bf16", "lora", "peft"),
        ("sd1", 256, 1, "bf16", "lora", "peft-autocast"),
        ("sd1", 256, 1, "fp32", "lora", "peft"),
        ("sd1", 256, 4, "bf16", "lora", "peft"),
        ("sd1", 256, 4, "fp32", "lora", "peft"),
        ("sd1", 512, 1, "bf16", "lora", "peft"),
        ("sd1", 512, 1, "bf16", "lora", "peft-autocast"),
        ("sd1", 512, 1, "fp32", "lora", "peft"),
        ("sd1", 256, 1, "bf16", "locon", "lycoris"),
        ("sd1", 256, 1, "bf16", "loha", "lycoris"),
        ("sd1", 256, 1, "bf16", "lokr", "lycoris"),
        ("sd1", 256, 1, "fp32", "loha", "lycoris"),
        ("sd1", 256, 1, "fp32", "lokr", "lycoris"),
    ],
    "cuda": [
        ("sd1", 512, 1, "bf16", "lora", "peft"),
        ("sd1", 512, 16, "bf16", "lora", "peft"),
        ("sd1", 512, 1, "bf16", "loha", "lycoris"),
        ("sdxl", 1024, 1, "bf16", "lora", "peft"),
        ("sdxl", 1024, 1, "bf16", "lokr", "lycoris"),
        ("sdxl", 1024, 8, "bf16", "lora", "peft"),
    ],
}
# Ways of maquette that can be compared, and what of the configuration each changes.
OURS: dict[str, dict[str, Any]] = {
    "maquette": {},
    "without-graphs": {"cuda_graphs": False},
    "compiled": {"compile": True},
    "compiled-without-graphs": {"compile": True, "cuda_graphs": False},
    "checkpointing": {"gradient_checkpointing": True},
}
RIVALS = ("peft", "peft-autocast", "lycoris")
Line = tuple[str, int, int, str, str, str]


def maquette_step(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """The product's own step."""
    import numpy as np
    from PIL import Image

    from maquette.config import TrainConfig
    from maquette.training import optim
    from maquette.training import preparing as training

    photos = folder / f"photos-{options.px}-{options.batch}"
    photos.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(options.batch):
        pixels = random.integers(0, 255, (options.px, options.px, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    config = TrainConfig.parse(
        {
            "photos": photos, "subject": "ohwx man", "base": str(model_file(folder, options.family)), "rank": 16,
            "method": options.method, "resolution": options.px, "batch_size": options.batch, "dtype": options.dtype,
            "steps": 1000, "sample_prompts": [], "learning_rate": 1e-4, "device": options.device,
            **OURS[options.worker],
        }
    )  # fmt: skip
    job = training.prepare(config, folder / "cache", lambda *_: None)
    if job.graphs is not None:
        job.graphs.on_warning = lambda message: print(message, file=sys.stderr)
    count = 0

    def step() -> Any:
        nonlocal count
        job.optimizer.zero_grad(set_to_none=True)
        loss, _ = job.gradients(count)
        norm = optim.gradient_norm(job.parameters)
        optim.optimizer_step(job.optimizer, job.parameters, norm, 1.0)
        count += 1
        return loss

    return step


def rival_step(options: argparse.Namespace, folder: Path) -> Callable[[], Any]:
    """A plain loop around diffusers' UNet, with PEFT's or LyCORIS's adapters."""
    import torch
    from diffusers import DDPMScheduler

    from maquette.families import load

    from . import theirs

    half, device = options.dtype == "bf16", options.device
    unet = theirs.unet(load(model_file(folder, options.family)).unet)  # float32, read as ours are
    unet.to(device, torch.bfloat16 if half and options.worker != "peft-autocast" else torch.float32)
    torch.manual_seed(0)
    if options.worker != "lycoris":
        from peft import LoraConfig

        linear = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
        unet.add_adapter(LoraConfig(r=16, lora_alpha=16, init_lora_weights="gaussian", target_modules=linear))
        learning = [p for p in unet.parameters() if p.requires_grad]
    else:
        from lycoris import LycorisNetwork, create_lycoris

        convs = ["ResnetBlock2D", "Downsample2D", "Upsample2D"] if options.method == "locon" else []
        LycorisNetwork.apply_preset({"target_module": ["Transformer2DModel", *convs]})
        special = {"factor": 8} if options.method == "lokr" else {}
        network = create_lycoris(
            unet, 1.0, linear_dim=16, linear_alpha=16, conv_dim=16, conv_alpha=16, algo=options.method, **special
        )
        network.apply_to()
        network.to(device)
        learning = [p for p in network.parameters() if p.requires_grad]
    for p in learning:
        p.data = p.data.float()
    schedule = DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    latents = torch.randn(options.batch, 4, options.px // 8, options.px // 8, device=device)
    texts = torch.randn(options.batch, 77, unet.config.cross_attention_dim, device=device)
    added = None
    if options.family == "sdxl":
        pooled = unet.add_embedding.linear_1.in_features - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(options.batch, pooled, device=device)}
        added["time_ids"] = torch.tensor([[options.px, options.px, 0, 0, options.px, options.px]] * options.batch)
        added["time_ids"] = added["time_ids"].to(device)

    def step() -> Any:
        noise = torch.randn_like(latents)
        t = torch.randint(0, 1000, (options.batch,), device=device)
        noised = schedule.add_noise(latents, noise, t)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            output = unet(noised, t, texts, added_cond_kwargs=added).sample
        loss = torch.nn.functional.mse_loss(output.float(), noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return step


def model_file(folder: Path, family: str) -> Path:
    """The random weights: of a narrow base where such a folder lies there, else a single file."""
    narrow = folder / f"{family}-narrow"
    return narrow if narrow.exists() else folder / f"{family}-random.safetensors"


def make_narrow(folder: Path, family: str) -> None:
    """A narrow base of random weights, in the layout of the real one."""
    from tests.families import tiny

    target = folder / f"{family}-narrow"
    if not target.exists():
        target.mkdir(parents=True)
        tiny.write_folder(target, family)


def work(options: argparse.Namespace) -> None:
    """A contestant: a turn for every line that comes in, a step's seconds and the peak memory so far for an answer."""
    import torch

    make, cuda = maquette_step if options.worker in OURS else rival_step, options.device == "cuda"
    step = make(options, options.folder)
    print("{}", flush=True)
    steps = options.turn or TURN[options.device]
    if cuda:
        torch.cuda.empty_cache()  # what encoding took
        torch.cuda.reset_peak_memory_stats()
    for _ in sys.stdin:
        began = time.perf_counter()
        for _ in range(steps):
            loss = step()
        value = float(loss.detach())  # waits for the device
        seconds = (time.perf_counter() - began) / steps
        memory = (
            torch.cuda.max_memory_allocated() if cuda else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        )
        print(json.dumps({"seconds": seconds, "memory": memory, "loss": value}), flush=True)


class Contestant:
    """A worker process, told to step when it is its turn; `checkout`: of the code, if it is not this one."""

    def __init__(self, name: str, options: argparse.Namespace, line: Line, checkout: Path | None = None) -> None:
        family, px, batch, dtype, method, _ = line
        command = [
            sys.executable, "-m", "benchmarks.train_step", "--worker", name, "--folder", str(options.folder),
            "--family", family, "--px", str(px), "--batch", str(batch), "--dtype", dtype, "--method", method,
            "--device", options.device, *(["--turn", str(options.turn)] if options.turn else []),
        ]  # fmt: skip
        environment = os.environ if checkout is None else {**os.environ, "PYTHONPATH": str(checkout / "src")}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout, env=environment
        )
        self.answers: list[dict[str, float]] = []

    def until_ready(self) -> None:
        """Wait for the end of its preparation."""
        self._answer()

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


def peak(dtype: str, device: str) -> float:
    """FLOP/s of a matrix product of 2048 x 2048 (CUDA: 8192 x 8192), the best of ten."""
    import torch

    side = 8192 if device == "cuda" else 2048
    a = torch.randn(side, side, dtype=getattr(torch, DTYPES[dtype]), device=device)
    best = float("inf")
    for _ in range(10):
        began = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best


def flops(family: str, px: int, batch: int, narrow: bool = False, backward: bool = True) -> float:
    """Of one step of a LoRA, forward and back or forward alone, counted on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from maquette.families import full_size, modules
    from tests.families import tiny

    unet: Any = modules.build_unet(tiny.unet_options(family, 4)) if narrow else full_size.networks(family)["unet"]
    unet.requires_grad_(False)
    pooled = unet.add_embedding.linear_1.in_features - 6 * 256 if family == "sdxl" else 0
    with torch.device("meta"):
        x = torch.zeros(batch, 4, px // 8, px // 8, requires_grad=True)
        texts = torch.zeros(batch, 77, unet.config.cross_attention_dim)
        added = (torch.zeros(batch, pooled), torch.zeros(batch, 6)) if pooled else ()
        with FlopCounterMode(display=False) as counter:
            output = unet(x, torch.zeros(batch), texts, *added)
            if backward:
                output.sum().backward()
    return float(counter.get_total_flops())


def compare(options: argparse.Namespace, line: Line) -> None:
    """The lines of a table for one setting: every way of ours against the rival."""
    family, px, batch, dtype, method, rival = line
    ways = options.ours.split(",")
    contestants = {name: Contestant(name, options, line) for name in ways}
    if options.against:
        rival = options.against.name
        contestants[rival] = Contestant("maquette", options, line, options.against)
    else:
        contestants[rival] = Contestant(rival, options, line)
    for contestant in contestants.values():
        contestant.until_ready()
    for _ in range(WARM_UP + options.steps):
        for contestant in contestants.values():
            contestant.step()
    found = {name: contestant.end() for name, contestant in contestants.items()}
    theirs = found.pop(rival)
    most, work = peak(dtype, options.device), flops(family, px, batch, options.narrow)
    for name, ours in found.items():
        reached = f"{work / ours[0] / 1e9:.0f} GFLOP/s, {work / ours[0] / most:.0%}"
        print(
            f"| {family} | {px} | {batch} | {dtype} | {method} | {name} {ours[0]:.3g} s | {rival} {theirs[0]:.3g} s "
            f"| **{theirs[0] / ours[0]:.2f}** | {batch / ours[0]:.3g} | {ours[1] / 1e9:.1f} GB "
            f"| {theirs[1] / 1e9:.1f} GB | {reached} |",
            flush=True,
        )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-train-step"))
    parser.add_argument("--device", choices=tuple(LINES), default="cpu")
    parser.add_argument("--family", choices=("sd1", "sdxl"))
    parser.add_argument("--px", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--dtype", choices=tuple(DTYPES))
    parser.add_argument("--method", choices=("lora", "locon", "loha", "lokr"))
    parser.add_argument("--rival", choices=RIVALS)
    parser.add_argument("--against", type=Path, help="an older checkout, instead of the other loop")
    parser.add_argument("--ours", help=f"one or more of {', '.join(OURS)}, with commas; on CUDA all of them")
    parser.add_argument("--steps", type=int, default=9, help="turns of each")
    parser.add_argument("--turn", type=int, default=0, help="steps of a turn; otherwise 1, on CUDA 20")
    parser.add_argument("--narrow", action="store_true", help="narrow networks: to see whether everything runs")
    parser.add_argument("--keep", action="store_true", help="keep the files of random weights for another run")
    parser.add_argument("--worker", choices=(*OURS, *RIVALS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return work(options)
    from benchmarks.load import write_model

    options.ours = options.ours or (",".join(OURS) if options.device == "cuda" else "maquette")
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = (options.family, options.px, options.batch, options.dtype, options.method, options.rival)
    lines = [
        line
        for line in LINES[options.device]
        if all(wish is None or wish == value for wish, value in zip(wanted, line, strict=True))
    ]
    if None not in wanted:
        lines = [wanted]  # whether it is in the table or not
    threads = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    print(f"{date.today()}, {options.device}, {threads} CPU threads, {options.steps} turns of each, medians\n")
    head = ["base", "pixels", "batch", "type", "method", "ours", "the other", "times faster", "images/s", "memory"]
    print(f"| {' | '.join([*head, 'its memory', 'reached, of a matrix product'])} |\n|{'---|' * 12}", flush=True)
    for line in lines:
        if options.narrow:
            make_narrow(options.folder, line[0])
        elif not model_file(options.folder, line[0]).exists():
            write_model(model_file(options.folder, line[0]), line[0])
        compare(options, line)
    if not options.keep:
        for family in {line[0] for line in lines}:
            file = model_file(options.folder, family)
            shutil.rmtree(file) if options.narrow else file.unlink()


if __name__ == "__main__":
    main()
