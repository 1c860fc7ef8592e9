"""Extract a LoRA from a full-size Stable Diffusion and resize one of rank 128, against full SVDs of each layer.

    python -m benchmarks.low_rank --folder /tmp/low_rank [--family sdxl] [--only extract|resize] [--threads 2]
                                  [--square 5120] [--keep]

Two models of random float16 weights are written (SD1.5: 4.3 GB, SDXL: 13.9 GB): the tuned one differs by a change of
rank 16 and noise. Other tools decompose every layer's difference by torch.linalg.svd with its default of square U and
V; each distinct shape is decomposed so once here (sides beyond --square with thin ones, which is kinder) and counted
as often as there are such. "error" is what is left of the difference, both ways, on the same layers. Memory is what
the process itself holds at most (anonymous pages), not the page cache of the files. Wall time on a busy machine means
little: processor time is given beside it. --threads are those of extraction and resizing, and PyTorch's own in the
rest.
"""

from __future__ import annotations

import argparse
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maquette.adapters.file import Adapter, AdapterModule
from maquette.core.lowrank import RankRule
from maquette.families import checkpoint, configs, full_size, save
from maquette.families.checkpoint import Checkpoint
from maquette.families.sd.spec import SD1, SD2
from maquette.families.sdxl.spec import SDXL
from maquette.fast import memory
from maquette.weights import stream
from maquette.weights.extract import Extracted, Extraction, Plan, extract
from maquette.weights.resize import resize

PARTS = {"unet": "unet", "vae": "vae", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
SPECS = {"sd1": SD1, "sd2": SD2, "sdxl": SDXL}
RANK, BEFORE, AFTER = 32, 128, 32


@dataclass
class Cost:
    """wall and processor seconds; peak: bytes of anonymous memory beyond those at the start."""

    wall: float = 0.0
    processor: float = 0.0
    peak: int = 0

    def __str__(self) -> str:
        return f"{self.wall:7.1f} s wall  {self.processor:7.1f} s processor  {self.peak / 1e6:6.0f} MB"


def anonymous() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return 1024 * int(line.split()[1])


@contextmanager
def measured() -> Iterator[Cost]:
    cost, stop, before = Cost(), threading.Event(), anonymous()

    def watch() -> None:
        while not stop.wait(0.02):
            cost.peak = max(cost.peak, anonymous() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield cost
    finally:
        cost.wall, cost.processor = time.perf_counter() - wall, time.process_time() - processor
        stop.set()
        watcher.join()


def write_models(folder: Path, family: str) -> tuple[Path, Path]:
    """The base and the tuned model, unless they are there."""
    paths = folder / f"{family}-base.safetensors", folder / f"{family}-tuned.safetensors"
    if all(path.is_file() for path in paths):
        return paths
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(0)

    def numbers(network: torch.nn.Module) -> dict[str, Tensor]:
        shapes = {name.removeprefix("text_model."): tensor.shape for name, tensor in network.state_dict().items()}
        return {name: (0.02 * torch.randn(shape, generator=generator)).half() for name, shape in shapes.items()}

    parts = {PARTS[part]: numbers(network) for part, network in full_size.networks(family).items()}
    derived = checkpoint.derive_configs(parts, family, "it")
    model = Checkpoint(SPECS[family], parts, derived, configs.scheduler_config(family, "epsilon", False), "it", [])
    save.write_single_file(model, paths[0], torch.float16)
    for part in (name for name in parts if name != "vae"):
        for name, weight in parts[part].items():
            change = 0.001 * torch.randn(weight.shape, generator=generator)
            if weight.ndim >= 2:
                rows, columns = weight.flatten(1).shape
                down = torch.randn(min(16, rows), columns, generator=generator)
                change += (4e-4 * torch.randn(rows, len(down), generator=generator) @ down).reshape(weight.shape)
            parts[part][name] = (weight.float() + change).half()
    save.write_single_file(model, paths[1], torch.float16)
    return paths


def full_svds(
    shapes: Counter[Any], change_of: Callable[[Any], Tensor], rank: int, square: int
) -> tuple[Cost, dict[Any, float]]:
    """Time for all layers by torch.linalg.svd, and the relative error at the rank by shape.

    square: sides up to which U and V are square.
    """
    cost, errors = Cost(), {}
    for shape, count in shapes.items():
        change = change_of(shape).flatten(1)
        wall, processor = time.perf_counter(), time.process_time()
        _, s, _ = torch.linalg.svd(change, full_matrices=max(change.shape) <= square)
        cost.wall += count * (time.perf_counter() - wall)
        cost.processor += count * (time.process_time() - processor)
        errors[shape] = float(s[rank:].norm() / s.norm())
    return cost, errors


def compared(full: Cost, cost: Cost) -> str:
    wall, processor = full.wall / cost.wall, full.processor / cost.processor
    told = f"{full.wall:.0f} s wall, {full.processor:.0f} s processor"
    return f"full SVDs of the same layers: {told}: {wall:.0f} and {processor:.0f} times as much"


def extraction(folder: Path, family: str, square: int, threads: int) -> None:
    base, tuned = (stream.open_model(path) for path in write_models(folder, family))
    memory.keep()
    for method in ("lora", "locon"):
        with measured() as cost:
            made = extract(tuned, base, Plan(RankRule(rank=RANK), method=method, dtype=torch.float16), threads=threads)
        print(f"extract {method:5s} rank {RANK}, {len(made.layers)} layers: {cost}", flush=True)
        if method == "lora":
            against_full_svds(made, tuned, base, cost, square)


def against_full_svds(made: Extraction, tuned: Checkpoint, base: Checkpoint, cost: Cost, square: int) -> None:
    places = {name: (part, f"{path}.weight") for name, (part, path) in stream.layers(base).items()}

    def shape_of(layer: Extracted) -> tuple[int, ...]:
        part, name = places[layer.name]
        return tuple(base.parts[part][name].shape)

    example = {shape_of(layer): layer for layer in made.layers}

    def change_of(shape: tuple[int, ...]) -> Tensor:
        place = places[example[shape].name]
        return stream.exact(tuned, place) - stream.exact(base, place)

    full, errors = full_svds(Counter(map(shape_of, made.layers)), change_of, RANK, square)
    worst = max(example[shape].error / error for shape, error in errors.items())
    print(compared(full, cost))
    print(f"error against the best possible: at most {worst:.4f} times")


def random_lora(family: str, rank: int) -> Adapter:
    """On every layer of the transformers and text encoders, with falling singular values."""
    from maquette.families import kohya_names

    generator, modules = torch.Generator().manual_seed(0), {}
    names = kohya_names(family, rank=rank)
    fall = torch.arange(1, rank + 1) ** -0.7
    for key, shape in names.items():
        name, _, part = key.partition(".")
        if part == "lora_down.weight":
            out = names[f"{name}.lora_up.weight"]
            down = torch.randn(shape, generator=generator) * fall.reshape(-1, *[1] * (len(shape) - 1))
            up = torch.randn(out, generator=generator)
            modules[name] = AdapterModule({"lora_down.weight": down, "lora_up.weight": up})
    return Adapter(family, "lora", modules)


def resizing(family: str, square: int, threads: int) -> None:
    lora = random_lora(family, BEFORE)
    with measured() as cost:
        made = resize(lora, RankRule(rank=AFTER), threads=threads)
    print(f"resize rank {BEFORE} to {AFTER}, {len(made.modules)} modules: {cost}")
    example = {tuple(lora.delta(module.name).shape): module for module in made.modules}
    shapes = Counter(tuple(lora.delta(module.name).shape) for module in made.modules)
    full, errors = full_svds(shapes, lambda shape: lora.delta(example[shape].name), AFTER, square)
    worst = max(math.sqrt(max(0.0, 1 - example[shape].kept)) / error for shape, error in errors.items())
    print(compared(full, cost))
    print(f"error against the best possible: at most {worst:.4f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out/low_rank"))
    parser.add_argument("--family", default="sd1", choices=("sd1", "sd2", "sdxl"))
    parser.add_argument("--only", choices=("extract", "resize"))
    parser.add_argument("--square", type=int, default=1 << 20, help="sides up to which full SVDs have square U and V")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep the models")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.only != "extract":
        resizing(arguments.family, arguments.square, arguments.threads)
    if arguments.only != "resize":
        extraction(arguments.folder, arguments.family, arguments.square, arguments.threads)
        if not arguments.keep:
            for path in write_models(arguments.folder, arguments.family):
                path.unlink()


if __name__ == "__main__":
    main()
