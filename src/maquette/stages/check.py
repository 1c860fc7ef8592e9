"""`maquette check`: what is wrong with a folder of photos, what will be learned from it, and what that costs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from ..config import Count, StageConfig
from ..data.dataset import Dataset, Photo, Problem, plan
from ..data.layouts import read_folder
from ..run import Event, Listener, ignore
from .costs import base_facts, lora_bytes


class CheckConfig(StageConfig):
    """What to check, and for which training."""

    photos: Path
    """Folder of photos: plain, or with Kohya's `40_ohwx man` folders."""
    subject: str | None = None
    """The rare word and the class, "ohwx man": makes the captions of photos that have none."""
    base: str = "pocket"
    """Base model to train on: "pocket", a .safetensors file or a diffusers folder."""
    reg: Path | None = None
    """Folder of regularization pictures."""
    repeats: Count | None = None
    """How often each photo counts in an epoch; otherwise 1 or what a Kohya folder's name says."""
    resolution: int | None = Field(default=None, ge=16)
    """Pixels of a side of the square whose area every photo is scaled to; otherwise the base's native size."""
    buckets: bool | None = None
    """Keep each photo's shape, cut to the nearest bucket; else cut squares. Default: no on pocket, yes elsewhere."""
    batch_size: Count | None = None
    """Photos per training step; otherwise 8 on pocket, 1 elsewhere."""
    rank: Count = 16
    """Rank of the LoRA, for the size of the file."""


@dataclass
class CheckResult:
    """The findings. `photos` are those that will be trained on; `problems` name everything else."""

    folder: str
    layout: str
    base: str
    resolution: int
    subject: str | None
    images: int  # instance photos that can be used
    class_images: int
    samples: int  # images x repeats
    class_samples: int
    batch_size: int
    steps_per_epoch: int
    file_bytes: int
    photos: list[dict[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    @property
    def left_out(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.left_out]

    @property
    def blocking(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.blocking]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def run(config: CheckConfig, on_event: Listener = ignore) -> CheckResult:
    """Read and decode every photo; change nothing. Emits "progress" with `done` and `total` photos.

    Raises MaquetteError when the folder or the base does not exist or no photo can be read.
    """
    facts = base_facts(config.base)
    resolution = config.resolution or facts.native_size

    def progress(done: int, total: int) -> None:
        on_event(Event("progress", {"done": done, "total": total}))

    dataset = read_folder(config.photos, config.subject, reg=config.reg, repeats=config.repeats, progress=progress)
    pocket = facts.name == "pocket"
    aspect_buckets = config.buckets if config.buckets is not None else not pocket
    dataset = plan(dataset, resolution, facts.latent_factor, aspect_buckets=aspect_buckets)
    batch_size = config.batch_size or (8 if pocket else 1)
    samples, class_samples = dataset.samples("instance"), dataset.samples("class")
    return CheckResult(
        folder=str(config.photos),
        layout=dataset.layout,
        base=config.base,
        resolution=resolution,
        subject=config.subject,
        images=len(dataset.of("instance")),
        class_images=len(dataset.of("class")),
        samples=samples,
        class_samples=class_samples,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch(dataset, batch_size),
        file_bytes=lora_bytes(facts.layers, config.rank),
        photos=[_report(photo) for photo in dataset.photos],
        problems=dataset.problems,
    )


def steps_per_epoch(dataset: Dataset, batch_size: int) -> int:
    """Optimizer steps that show every instance photo `repeats` times."""
    return math.ceil(dataset.samples("instance") / batch_size)


def _report(photo: Photo) -> dict[str, Any]:
    assert photo.crop is not None
    return {
        "name": photo.name,
        "role": photo.role,
        "size": list(photo.size),
        "bucket": list(photo.crop.bucket),
        "crop": [round(x) for x in photo.crop.box],
        "enlarged": round(photo.crop.enlargement, 3),
        "cut_off": round(photo.crop.lost, 3),
        "repeats": photo.repeats,
        "caption": photo.caption,
        "caption_source": photo.caption_source,
        "notes": list(photo.notes),
    }
