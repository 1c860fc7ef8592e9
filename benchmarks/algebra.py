"""Time, memory and speed of merging and blending full-size models of random numbers, beside a plain copy.

    python -m benchmarks.algebra --folder /tmp/algebra                 # Stable Diffusion 1.5, float16
    python -m benchmarks.algebra --folder /tmp/algebra --family sdxl --rows copy,blend,naive-blend

Each row runs in a process of its own, in turns, `--repeats` times; medians are printed with the machine's load beside
them. "processor" is the time that all its threads computed, the system's part of it included. Peak memory is what the
process itself took (anonymous pages), without the page cache through which files are read and written. "copy" is the
yardstick of the blends: both inputs are read and as many bytes written as a blend writes. "blend" reads both inputs for
their sha256 as well; "blend-again" finds these remembered, as from the second use of a model on. The naive rows are
what other tools do: `load_file`, a loop, `save_file`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import torch

PREAMBLE = """
import json, os, sys, threading, time
from pathlib import Path
folder = Path(sys.argv[1])
a, b, lora, out = (folder / name for name in ("a.safetensors", "b.safetensors", "lora.safetensors", "out.safetensors"))
out.unlink(missing_ok=True)
peak, running = [0], [True]
def watch():
    while running[0]:
        for line in open("/proc/self/status"):
            if line.startswith("RssAnon"):
                peak[0] = max(peak[0], int(line.split()[1]) * 1024)
        time.sleep(0.005)
"""
MEASURE = """
start_memory = [int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("RssAnon")][0]
threading.Thread(target=watch, daemon=True).start()
start, worked = time.perf_counter(), time.process_time()
work()
seconds, worked = time.perf_counter() - start, time.process_time() - worked
running[0] = False
print(json.dumps({"seconds": seconds, "worked": worked, "peak": max(0, peak[0] - start_memory)}))
out.unlink(missing_ok=True)
"""
COPY = """
def work():
    buffer = bytearray(1 << 24)
    with open(b, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    with open(a, "rb", buffering=0) as file, open(out, "wb", buffering=0) as new:
        os.posix_fallocate(new.fileno(), 0, os.path.getsize(a))
        while count := file.readinto(buffer):
            new.write(memoryview(buffer)[:count])
        os.fsync(new.fileno())
"""
BLEND = """
import maquette, maquette.stages.blend
from maquette.formats import known_hashes
known_hashes._read, known_hashes._write = dict, lambda place, entry: None
def work():
    maquette.blend([a, b], out, alpha=0.3)
"""
BLEND_AGAIN = """
import maquette, maquette.stages.blend
from maquette.formats.known_hashes import files_sha256
os.environ["MAQUETTE_CACHE"] = str(folder)
files_sha256([a]), files_sha256([b])
def work():
    maquette.blend([a, b], out, alpha=0.3)
"""
MECHA = """
import sd_mecha, torch
sd_mecha.set_log_level("ERROR")
def work():
    recipe = sd_mecha.weighted_sum(sd_mecha.model(str(a)), sd_mecha.model(str(b)), alpha=0.3)
    sd_mecha.merge(recipe, output=out, merge_device="cpu", merge_dtype=torch.float32, output_dtype=torch.float16)
    with open(out, "rb") as file:
        os.fsync(file.fileno())
"""
NAIVE_BLEND = """
from safetensors.torch import load_file, save_file
def work():
    first, second = load_file(a), load_file(b)
    for name, tensor in first.items():
        if tensor.is_floating_point():
            first[name] = (0.7 * tensor.float() + 0.3 * second[name].float()).to(tensor.dtype)
    save_file(first, out)
    with open(out, "rb") as file:
        os.fsync(file.fileno())
"""
MERGE = """
import maquette, maquette.stages.merge
def work():
    maquette.merge(a, [f"{lora}:0.8"], out)
"""
NAIVE_MERGE = """
import re
from safetensors.torch import load_file, save_file
from maquette.families import checkpoint
from maquette.weights import stream
layers = stream.layers(stream.open_model(a))
places = __import__("maquette.formats.ldm", fromlist=["ldm"]).places
model = checkpoint.read(a)
where = {(place.part, place.names[0]): name for name, place in places(model.parts, model.prefixes).items()}
def work():
    weights, factors = load_file(a), load_file(lora)
    for name in sorted({key.partition(".")[0] for key in factors}):
        part, path = layers[name]
        down, up = factors[f"{name}.lora_down.weight"].float(), factors[f"{name}.lora_up.weight"].float()
        scale = float(factors[f"{name}.alpha"]) / len(down)
        key = where[part, f"{path}.weight"]
        change = (up.flatten(1) @ down.flatten(1)).reshape(weights[key].shape)
        weights[key] = (weights[key].float() + 0.8 * scale * change).to(weights[key].dtype)
    save_file(weights, out)
    with open(out, "rb") as file:
        os.fsync(file.fileno())
"""

ROWS: dict[str, tuple[str, int]] = {  # name -> program, and how many files' bytes it moves
    "copy": (COPY, 3),
    "blend": (BLEND, 3),
    "blend-again": (BLEND_AGAIN, 3),
    "sd-mecha": (MECHA, 3),
    "naive-blend": (NAIVE_BLEND, 3),
    "merge": (MERGE, 2),
    "naive-merge": (NAIVE_MERGE, 2),
}


def write_inputs(folder: Path, family: str) -> None:
    """Two models and a LoRA of rank 32 with a family's full-size names, of random float16 numbers."""
    from benchmarks.load import write_model
    from maquette.families.trainable import kohya_names
    from maquette.formats import safetensors

    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        if not (folder / f"{name}.safetensors").exists():
            write_model(folder / f"{name}.safetensors", family)
    if not (folder / "lora.safetensors").exists():
        generator = torch.Generator().manual_seed(0)
        tensors = {}
        for name, shape in kohya_names(family, rank=32).items():
            alpha = name.endswith(".alpha")
            tensors[name] = torch.tensor(16.0) if alpha else torch.randn(shape, generator=generator).mul_(0.02).half()
        safetensors.save(tensors, folder / "lora.safetensors")


def measure(folder: Path, names: list[str], repeats: int) -> dict[str, list[dict[str, float]]]:
    """Every run of every row, in turns, so that whatever else the machine does falls on all alike."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            program = PREAMBLE + ROWS[name][0] + MEASURE
            found = subprocess.run(
                [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False
            )
            if found.returncode:
                raise SystemExit(f"{name}: {found.stderr}")
            runs[name].append(json.loads(found.stdout.splitlines()[-1]))
    return runs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-algebra"))
    parser.add_argument("--family", default="sd1", choices=["sd1", "sd2", "sdxl"])
    parser.add_argument("--rows", default=",".join(ROWS), help=f"out of {', '.join(ROWS)}")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--keep", action="store_true", help="keep the models for another run")
    options = parser.parse_args()
    names = options.rows.split(",")
    folder = options.folder / options.family
    write_inputs(folder, options.family)
    size = (folder / "a.safetensors").stat().st_size
    machine = f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}"
    print(f"{options.family}, float16, {size / 1e9:.2f} GB a model; {machine}")
    print(f"{'':12} {'median':>8} {'least to most':>16} {'GB/s':>6} {'processor':>10} {'peak memory':>12}")
    runs = measure(folder, names, options.repeats)
    for name, found in runs.items():
        seconds = [run["seconds"] for run in found]
        moved = ROWS[name][1] * size / statistics.median(seconds) / 1e9
        print(
            f"{name:12} {statistics.median(seconds):7.2f}s {min(seconds):7.2f} to {max(seconds):5.2f} {moved:6.2f} "
            f"{statistics.median(run['worked'] for run in found):9.2f}s "
            f"{statistics.median(run['peak'] for run in found) / 1e6:9.0f} MB"
        )
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    if not options.keep:
        for file in folder.iterdir():
            file.unlink()


if __name__ == "__main__":
    main()
