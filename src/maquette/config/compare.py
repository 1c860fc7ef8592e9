"""The configuration of `maquette compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Self, get_args

from pydantic import Field, model_validator

from .base import Count, StageConfig
from .train import TrainConfig

METHODS: tuple[str, ...] = get_args(TrainConfig.model_fields["method"].annotation)


class CompareConfig(StageConfig):
    """What is trained side by side on the same photos, and measured on the same panel."""

    photos: Path
    """Folder of photos, the same for all."""
    subject: str
    """The rare word and the class, "ohwx man"."""
    methods: list[str] = Field(default=[])
    """Methods, with commas or given again; otherwise all of them, where neither bases nor a setting are compared."""
    bases: list[str] = Field(default=[])
    """Two bases or more: what is trained on each is used on each."""
    settings: list[str] = Field(default=[])
    """key=value for all, or with commas key=4,16,64 to compare: every combination is trained."""
    base: str = "pocket"
    """The base model, where only one is used."""
    steps: Count | None = None
    """Steps of each training; otherwise as many as the photos ask for, the same for all."""
    checkpoints: Count = 4
    """Checkpoints of each training among which step and weight are chosen, where `steps` is given."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of every training and of the panel."""
    thorough: bool = False
    """Measure every checkpoint at every weight, with more pictures; many times slower."""
    jobs: Count = 1
    """How many are trained at a time."""
    out: Path | None = None
    """Where the runs, the table and the page go; otherwise runs/compare- and the subject. What was finished there under
    the same settings is not done again."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:1."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.subject.strip():
            raise ValueError('subject is empty: name the rare word and the class, "ohwx man"')
        self.methods[:] = [name.strip() for part in self.methods for name in part.split(",") if name.strip()]
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"there is no method {unknown[0]!r}; choose from {', '.join(METHODS)}")
        if len(set(self.methods)) < len(self.methods) or len(set(self.bases)) < len(self.bases):
            raise ValueError("each method and each base is compared once: one is named twice")
        stems = [Path(base).stem for base in self.bases]
        if twice := [stem for stem in stems if stems.count(stem) > 1]:
            raise ValueError(f"two bases are called {twice[0]}, and runs are named after their bases: rename one")
        if len(self.bases) == 1:
            raise ValueError("bases compares two or more; for one give base")
        return self
