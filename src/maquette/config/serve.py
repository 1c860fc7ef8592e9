"""The configuration of `maquette serve`."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field

from .base import Count
from .studio import StudioSettings


class ServeSettings(StudioSettings):
    """What a server for other programs draws with, and who may reach it."""

    has_pages: ClassVar[bool] = False

    data: Path = Path("out/serve")
    """Folder of what is kept: pictures that programs ask to be saved, the log of drawing."""
    api: bool = True
    """Programs on this computer are let in."""
    replicas: Count = 1
    """Pictures drawn at a time: 1 is a process of this server's, more are replicas of Ray Serve (extra `serve`), each
    with a base of its own, and with a graphics card where the cluster has some."""
    cluster: str = "local"
    """Where replicas run: local (on this machine), auto (the Ray cluster of this machine) or ray://host:10001, whose
    machines see the same folders."""
    loras: list[Path] = Field(default_factory=lambda: [Path("runs")])
    """Folders of LoRA files; otherwise runs."""
