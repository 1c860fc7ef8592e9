"""The configuration of `maquette studio`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from .base import StageConfig

Port = Annotated[int, Field(ge=0, le=65_535)]


class StudioSettings(StageConfig):
    """Where the studio keeps what it is given, and who may reach it."""

    group: ClassVar[str] = "Studio"

    data: Path = Path("~/maquette")
    """Folder of everything: projects, photos, captions, jobs. It may be read, moved and deleted by hand."""
    port: Port = 7860
    """Port of the page; where it is taken, the next free one."""
    lan: bool = False
    """Answer other computers of the network too; needs a password."""
    host: str | None = None
    """Address to listen on; otherwise 127.0.0.1, with `lan` all of this computer."""
    name: str | None = None
    """Name by which other computers call this one, such as studio.local; with `lan`."""
    password: str | None = Field(default=None, min_length=8, repr=False)
    """Password that browsers and programs are asked for, 8 characters or more."""
    api: bool = False
    """Answer programs that speak A1111's API (/sdapi/v1) or OpenAI's (/v1) from this computer without the page's
    token; with a password they give that."""
    base: str = "pocket"
    """Base model that is chosen where a project names none: "pocket", a .safetensors file or a diffusers folder."""
    bases: Path | None = None
    """Folder of base models; otherwise `bases` in `data`."""
    loras: list[Path] = Field(default_factory=list)
    """Further folders of LoRA files for the playground."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.lan and not self.password:
            raise ValueError("lan lets other computers in: give a password (--password) of 8 characters or more")
        return self

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return self.data.expanduser().absolute()

    @property
    def address(self) -> str:
        """Address to listen on."""
        return self.host or ("0.0.0.0" if self.lan else "127.0.0.1")

    @property
    def bases_folder(self) -> Path:
        return (self.bases or self.folder / "bases").expanduser().absolute()
