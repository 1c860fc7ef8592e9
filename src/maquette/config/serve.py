"""The configuration of `maquette serve`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from .studio import StudioSettings


class ServeSettings(StudioSettings):
    """What a server for other programs draws with, and who may reach it."""

    has_pages: ClassVar[bool] = False

    data: Path = Path("out/serve")
    """Folder of what is kept: pictures that programs ask to be saved, the log of drawing."""
    api: bool = True
    """Programs on this computer are let in."""
    loras: list[Path] = Field(default_factory=lambda: [Path("runs")])
    """Folders of LoRA files; otherwise runs."""
