"""Time and memory to open a full-size Stable Diffusion 1.5 from one file: maquette against diffusers, in the same run.

    python -m benchmarks.load --folder /tmp/load

Writes a file of random float16 weights (2.1 GB; deleted afterwards unless --keep) and opens it in a fresh process for
each measurement, in turns, the file in the page cache. "open" is until the networks are ready; "read" is after every
weight has been copied into a buffer, so that memory-mapping cannot hide work. Imports are not counted: both need the
same ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

PROGRAM = """
import json, resource, sys, time
import torch
from diffusers import StableDiffusionPipeline  # both: so that imports are not compared
import maquette.families.load, maquette.families.modules
from transformers.models.clip.modeling_clip import CLIPTextModel
who, path, config = sys.argv[1:]
start_memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
if who == "maquette":
    base = maquette.families.load(path, dtype=torch.float16)
    networks = [base.unet, base.vae, *base.text_encoders]
else:
    pipe = StableDiffusionPipeline.from_single_file(
        path, config=config, local_files_only=True, safety_checker=None, torch_dtype=torch.float16)
    networks = [pipe.unet, pipe.vae, pipe.text_encoder]
opened = time.perf_counter() - start
weights = [p.detach().view(-1) for n in networks for p in n.parameters()]
buffer = torch.empty(max(map(len, weights)), dtype=torch.float16)
for weight in weights:
    buffer[: len(weight)].copy_(weight)
read = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start_memory
total = sum(w.view(torch.int16).sum(dtype=torch.int64).item() for w in weights)
print(json.dumps({"open": opened, "read": read, "peak": peak * 1024, "sum": total}))
"""


def write_model(path: Path, family: str = "sd1") -> None:
    """A single file with the names and shapes of a family and random float16 numbers."""
    from maquette.families import full_size

    write_random(full_size.networks(family), family, path)


def write_random(networks: Mapping[str, torch.nn.Module], family: str, path: Path) -> None:
    """The same for networks ("unet", "vae", "te" or "te1" and "te2") of any width, on any device."""
    from maquette.formats import ldm, safetensors

    block = torch.randn(1 << 20, generator=torch.Generator().manual_seed(0)).mul_(0.02).half()

    def numbers(shape: torch.Size) -> torch.Tensor:
        count = shape.numel()
        return block.repeat(-(-count // len(block)))[:count].reshape(shape)

    parts = {}
    for part, network in networks.items():
        shapes = {name.removeprefix("text_model."): tensor.shape for name, tensor in network.state_dict().items()}
        tensors = {name: numbers(shape) for name, shape in shapes.items()}
        parts[{"te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}.get(part, part)] = tensors
    safetensors.save(ldm.join(ldm.SingleFile(parts, ldm.standard_prefixes(family, parts))), path)


def measure(path: Path, config: Path, repeats: int) -> dict[str, list[dict[str, float]]]:
    """Every run of both, in turns, so that whatever else the machine does falls on both alike."""
    runs: dict[str, list[dict[str, float]]] = {"maquette": [], "diffusers": []}
    for _ in range(repeats):
        for who, found in runs.items():
            command = [sys.executable, "-c", PROGRAM, who, str(path), str(config)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise SystemExit(result.stderr)
            found.append(json.loads(result.stdout.splitlines()[-1]))
    return runs


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmark-load"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", action="store_true", help="keep the file for another run")
    options = parser.parse_args()
    from maquette.families import checkpoint, save
    from maquette.formats import safetensors

    options.folder.mkdir(parents=True, exist_ok=True)
    path, config = options.folder / "sd15-random.safetensors", options.folder / "config"
    if not path.exists():
        write_model(path)
    save.write_configuration(checkpoint.read(path), config)
    size = path.stat().st_size
    print(f"file {size / 1e9:.2f} GB, float16, {options.repeats} fresh processes each, medians")
    print(f"{'':10} {'open':>8} {'read':>8} {'least to most':>14} {'peak memory':>12} {'of the file':>12}")
    safetensors.file_sha256(path)  # into the page cache, for both
    runs = measure(path, config, options.repeats)
    for who, found in runs.items():
        m = {key: statistics.median(run[key] for run in found) for key in ("open", "read", "peak")}
        spread = f"{min(run['read'] for run in found):.2f} to {max(run['read'] for run in found):.2f}"
        print(
            f"{who:10} {m['open']:7.2f}s {m['read']:7.2f}s {spread:>14} "
            f"{m['peak'] / 1e9:9.2f} GB {m['peak'] / size:12.2f}"
        )
    sums = {run["sum"] for found in runs.values() for run in found}
    if len(sums) != 1:
        raise SystemExit("the two loaded different weights")
    if not options.keep:
        path.unlink()


if __name__ == "__main__":
    main()
