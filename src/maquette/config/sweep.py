"""The configuration of `maquette sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from .base import Count, StageConfig


class SweepConfig(StageConfig):
    """Which settings are tried on the same photos, and by whom."""

    photos: Path
    """Folder of photos, the same for all."""
    subject: str
    """The rare word and the class, "ohwx man"."""
    settings: list[str] = Field(default=[])
    """key=value for all; key=4,16,64 to try each; key=1e-5..1e-3 to draw from (with samples), evenly in the logarithm
    where both ends are above 0."""
    base: str = "pocket"
    """The base model."""
    samples: Count | None = None
    """Draw so many combinations at random; otherwise every combination is tried."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of what is drawn, and of every training."""
    root: str = "sweep"
    """Where results go: a folder, or an address that fsspec knows. What was trained there before is not done again."""
    address: str = "local"
    """Who works: local, auto or ray://host:10001, as of `maquette fleet run`."""
    workers: Count = 1
    """Trainings at a time."""
    slots: Count = 1
    """How many combinations a worker trains at once, on one network, where they allow it (docs/slots.md)."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not self.settings:
            raise ValueError("give settings to try, such as --set rank=4,16")
        return self
