"""`maquette check`: what is wrong with a folder of photos, what will be learned from it, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..data.dataset import Dataset, Photo, Problem, plan
from ..data.layouts import read_folder
from .costs import base_facts, lora_bytes


class CheckConfig(BaseModel):
    """What to check, and for which training."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    photos: Path
    """Folder of photos: plain, or with Kohya's `40_ohwx man` folders."""
    subject: str | None = None
    """The rare word and the class, "ohwx man": makes the captions of photos that have none."""
    base: str = "pocket"
    """Base model to train on: "pocket", a .safetensors file or a diffusers folder."""
    reg: Path | None = None
    """Folder of regularization pictures."""
    repeats: int | None = Field(default=None, ge=1)
    """How often each photo counts in an epoch; otherwise 1 or what a Kohya folder's name says."""
    resolution: int | None = Field(default=None, ge=16)
    """Pixels of a side of the square whose area every bucket has; otherwise the base's native size."""
    batch_size: int = Field(default=1, ge=1)
    """Photos per training step."""
    rank: int = Field(default=16, ge=1)
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


def run(config: CheckConfig, on_progress: Callable[[int, int], None] | None = None) -> CheckResult:
    """Read and decode every photo; change nothing.

    Raises MaquetteError when the folder or the base does not exist or no photo can be read.
    """
    facts = base_facts(config.base)
    resolution = config.resolution or facts.native_size
    dataset = read_folder(config.photos, config.subject, reg=config.reg, repeats=config.repeats, progress=on_progress)
    dataset = plan(dataset, resolution, facts.latent_factor)
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
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch(dataset, config.batch_size),
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
