"""What merging and blending share: where the result goes, how it is written, and what is told meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import openmp
from ..config.weights import WritingConfig
from ..core.dtypes import DTYPES, computed
from ..errors import MaquetteError
from ..events import Event, Listener
from ..families import save
from ..families.checkpoint import Checkpoint
from ..weights.ancestry import Ancestry

_SUFFIXES = (".safetensors", ".ckpt")


@dataclass
class WrittenModel:
    """What was written. changed: tensors that differ from the first model's; gb_per_second: of the file's bytes."""

    path: str
    family: str
    tensors: int
    changed: int
    size_bytes: int
    seconds: float
    gb_per_second: float
    words: list[str] = field(default_factory=list)
    """Files of words that came with a LoRA, to be used as embeddings."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def refuse_taken(out: Path, sources: Iterable[Path | str]) -> None:
    """Raise MaquetteError where the result would overwrite something, above all what it is made from."""
    if out.suffix and out.suffix.lower() not in _SUFFIXES and not out.is_dir():
        raise MaquetteError(f"{out} must end in .safetensors or .ckpt, or have no ending for a diffusers folder.")
    for source in sources:
        if out.exists() and Path(source).exists() and os.path.samefile(out, source):
            raise MaquetteError(f"{out} is what is read; choose another name with --out.")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise MaquetteError(f"{out} exists already; choose another name with --out.")


def drop_averages(model: Checkpoint, warnings: list[str]) -> None:
    """Leave out averaged (EMA) weights: they are not changed, and would later be taken for the result's."""
    kept = {name: tensor for name, tensor in model.extras.items() if not name.startswith("model_ema.")}
    if len(kept) < len(model.extras):
        warnings.append(
            f"{model.source} also holds averaged weights (EMA), which are not those of the result: left out."
        )
        model.extras = kept


def write(
    config: WritingConfig,
    model: Checkpoint,
    pieces: Callable[[str, str, torch.dtype], Iterable[Tensor]],
    memory: Callable[[str, str], int],
    changed: int,
    ancestry: Ancestry,
    what: str,
    on_event: Listener,
    widened: Container[tuple[str, str]] = (),
) -> WrittenModel:
    """Write a model whose shape, names and configuration are those of `model`, and whose numbers `pieces` gives.

    widened: as of `save.Writing`.
    """
    meter = _Meter(model, config, what, on_event, widened)
    writing = save.Writing(
        pieces,
        memory,
        ancestry.placeholder(),
        ancestry.final,
        [parent.hash_now for parent in ancestry.parents],
        config.threads or processors(),
        meter.add,
        widened,
    )
    dtype = DTYPES[config.dtype] if config.dtype else None
    if config.out.suffix.lower() in _SUFFIXES:
        save.write_single_file(model, config.out, dtype, config.half_vae, writing)
        size = config.out.stat().st_size
    else:
        save.write_folder(model, config.out, dtype, config.half_vae, writing)
        size = sum(file.stat().st_size for file in config.out.rglob("*") if file.is_file())
    count = sum(len(tensors) for tensors in model.parts.values()) + len(model.extras)
    seconds = time.perf_counter() - meter.start
    on_event(Event("saved", {"path": str(config.out)}))
    return WrittenModel(
        str(config.out), model.spec.name, count, changed, size, round(seconds, 3), round(size / seconds / 1e9, 3)
    )


def processors() -> int:
    """How many tensors are computed at a time where nobody says otherwise."""
    return min(openmp.processors(), 8)


class _Meter:
    """Tells how many megabytes are written, and how fast."""

    def __init__(
        self,
        model: Checkpoint,
        config: WritingConfig,
        what: str,
        on_event: Listener,
        widened: Container[tuple[str, str]],
    ) -> None:
        self.what, self.on_event, self.done, self.start = what, on_event, 0, time.perf_counter()
        dtype = DTYPES[config.dtype] if config.dtype else None
        self.of = 0
        for part, named in model.parts.items():
            for name, tensor in named.items():
                cast = dtype if dtype and tensor.is_floating_point() and (config.half_vae or part != "vae") else None
                own = computed(tensor.dtype) if (part, name) in widened else tensor.dtype
                self.of += tensor.numel() * (cast or own).itemsize
        self.of += sum(tensor.nbytes for tensor in model.extras.values())

    def add(self, size: int) -> None:
        self.done += size
        seconds = max(1e-9, time.perf_counter() - self.start)
        left = (self.of - self.done) * seconds / max(1, self.done)
        data = {
            "what": self.what,
            "unit": "MB",
            "done": self.done // 1_000_000,
            "of": max(1, self.of // 1_000_000),
            "gb_per_second": self.done / seconds / 1e9,
            "remaining_seconds": max(0.0, left),
        }
        self.on_event(Event("progress", data))
