"""Three ways to train, and what each takes: steps, time and memory, told before the start. Without torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..demo.settings import TRAINING as POCKETS
from ..formats.headers import header_of
from ..openmp import processors
from ..training.effort import (
    CPU_SHARE,
    GPU_SHARE,
    forward_work,
    has_driver,
    processor_speed,
    training_memory,
    training_seconds,
)
from ..training.recipes import POCKET, STABLE_DIFFUSION, Recipe, default_steps
from .library import Library

if TYPE_CHECKING:
    from .core import Studio
    from .store import Project

Preset = Literal["quick", "good", "best"]
SHARES: dict[Preset, float] = {"quick": 0.4, "good": 1.0, "best": 1.6}  # of the usual number of steps
CHECKPOINTS: dict[Preset, int] = {"quick": 3, "good": 4, "best": 8}
POCKET_UNET = Path(__file__).parent.parent / "families/pocket/weights/unet/diffusion_pytorch_model.safetensors"
GPU_SPEED = 4e13  # FLOP/s of a middling card in bf16: an assumption, used until a training here has been measured
SMALL = 64  # side of the matrices that measure a core
AROUND = 5e8  # bytes of the program itself


@dataclass(frozen=True)
class Cost:
    """What a training takes. measured: by an earlier one here; else estimated, within a factor of three."""

    steps: int
    seconds: float | None
    memory_bytes: int | None
    measured: bool


def base_of(studio: Studio, project: Project) -> str:
    """The path of the base that a project is trained on, "pocket" for that which comes along. Raises MaquetteError for
    one that is gone.
    """
    name = str(project.settings.get("base") or studio.settings.base)
    return Library([studio.settings.bases_folder], [], studio.settings.base).model(name).path


def free_memory() -> int | None:
    """Bytes of memory that programs may take now; None where the system does not tell."""
    return system_memory("MemAvailable")


def system_memory(name: str) -> int | None:
    """Bytes that Linux tells by this name: MemTotal, MemAvailable; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
    except (OSError, StopIteration, ValueError):
        return None


def recipe_of(base: str) -> Recipe:
    return POCKET if is_pocket(base) else STABLE_DIFFUSION


def is_pocket(base: str) -> bool:
    """Whether a base is the one that comes along, or a copy of it as a folder or file, which trains alike."""
    if base == "pocket":
        return True
    shapes = unet_shapes(base)  # names differ between folders and files
    return bool(shapes) and sorted(shapes.values()) == sorted(unet_shapes("pocket").values())


def batch_of(base: str) -> int:
    recipe = recipe_of(base)
    return recipe.batch_size_cuda if has_driver() else recipe.batch_size


def values(preset: Preset, photos: int, base: str, changed: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of `maquette train` that a preset sets beside the user's changes. "good" leaves steps to the defaults.
    On pocket all train as the demonstration does, unless the user chooses the method.
    """
    own = POCKETS if is_pocket(base) and "method" not in changed else {}
    if preset == "good" or {"steps", "epochs"} & changed.keys():
        return dict(own)
    steps = round(SHARES[preset] * default_steps(recipe_of(base), max(1, photos), batch_of(base)))
    return own | {"steps": steps, "save_every_steps": max(1, math.ceil(steps / CHECKPOINTS[preset]))}


def costs(studio: Studio, photos: int, base: str, changed: Mapping[str, Any]) -> dict[Preset, Cost]:
    """Steps, time and memory of each preset with the user's changes."""
    batch = _number(changed, "batch_size") or batch_of(base)
    resolution = _number(changed, "resolution")
    usual = default_steps(recipe_of(base), max(1, photos), batch)
    shapes = unet_shapes(base)
    work = forward_work(shapes, _cells(base, shapes, resolution)) if shapes else None
    each, memory = None, None  # seconds of a picture, bytes
    if work is not None:
        flop, outputs = work
        gpu = has_driver()
        each = training_seconds(1, flop, GPU_SPEED * GPU_SHARE if gpu else cpu_speed() * CPU_SHARE)
        memory = int(training_memory(shapes, outputs * batch, 2 if gpu else 4) + AROUND)
    rate = measured_rate(studio, base, resolution)
    if rate:
        each = 1 / rate
    steps = {preset: _number(changed, "steps") or round(share * usual) for preset, share in SHARES.items()}
    return {
        preset: Cost(count, None if each is None else count * batch * each, memory, rate is not None)
        for preset, count in steps.items()
    }


def measured_rate(studio: Studio, base: str, resolution: int | None) -> float | None:
    """Pictures per second of the newest training here on the same base and size; None without one."""
    for job in studio.queue.jobs():
        config, rate = job.spec["config"], job.status().get("images_per_second")
        same = job.spec["kind"] == "train" and config.get("base") == base and config.get("resolution") == resolution
        if same and isinstance(rate, int | float) and rate > 0 and job.state in ("finished", "stopped", "paused"):
            return float(rate)
    return None


def unet_shapes(base: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a base's UNet from the header of its file; empty for what has none that can be read."""
    path = Path(base)
    if base == "pocket":
        path = POCKET_UNET
    elif path.is_dir():
        path = path / "unet" / "diffusion_pytorch_model.safetensors"
    try:
        return dict(_shapes(str(path), os.stat(path).st_mtime_ns))
    except OSError:
        return {}


@lru_cache(maxsize=32)
def _shapes(path: str, changed: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """changed: when the file was written, so that another one of its name is read anew."""
    found = []
    for name, entry in header_of(path).items():
        if name == "__metadata__" or name.startswith(("cond_stage_model", "conditioner", "first_stage_model", "vae.")):
            continue
        shape = entry.get("shape") if isinstance(entry, dict) else None
        if isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape):
            found.append((name.removeprefix("model.diffusion_model.").removeprefix("unet."), tuple(shape)))
    return tuple(found)


def _cells(base: str, shapes: Mapping[str, tuple[int, ...]], resolution: int | None) -> int:
    """Cells of the latent of one picture."""
    if is_pocket(base):
        return ((resolution or 64) // 4) ** 2
    texts = {shape[1] for name, shape in shapes.items() if "attn2.to_k" in name and len(shape) == 2}
    side = 1024 if 2048 in texts else 768 if 1024 in texts else 512
    return ((resolution or side) // 8) ** 2


@lru_cache(maxsize=1)
def cpu_speed() -> float:
    """FLOP/s of matrix products on all cores of this processor, measured once, in a tenth of a second of its time.

    Of one core, by products too small for the library to share among several: threads that wait for each other would
    count their waiting on a busy machine.
    """
    import numpy as np

    a, each = np.ones((SMALL, SMALL), np.float32), 100

    def products() -> None:
        for _ in range(each):
            a @ a

    return processor_speed(products, each * 2 * SMALL**3) * processors()


def _number(changed: Mapping[str, Any], key: str) -> int | None:
    value = changed.get(key)
    return value if isinstance(value, int) and value > 0 else None
