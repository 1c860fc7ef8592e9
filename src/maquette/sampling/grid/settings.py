"""The options of `maquette grid`: those of a drawing, and the axes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from ..draw_settings import BaseSettings, DrawSettings


class GridConfig(BaseSettings, DrawSettings):
    """What a grid's cells have in common, and its axes."""

    group: ClassVar[str] = "Grid"

    prompt: str = ""
    """What to draw, in A1111's prompt language; <lora:NAME:0.8> applies a LoRA, whose name, checkpoint or weight an
    axis can change."""
    x: str | None = None
    """Axis from left to right, NAME=VALUES: weight=0.4-1 [4], checkpoint=all, seed=1-3, "sampler=DDIM, Euler a" …"""
    y: str | None = None
    """Axis from top to bottom."""
    z: str | None = None
    """Axis from sheet to sheet."""
    out: Path | None = None
    """Folder of the grid; one that was ended is gone on with. Otherwise out/grid, or out/grid-2 and so on."""

    @property
    def whole(self) -> bool:
        """Whether it is a cell's, to which axes add nothing."""
        return not (self.x or self.y or self.z)
