"""The configuration of `maquette studio`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from ..files import at_home
from .base import StageConfig

PASSWORD_VARIABLE = "MAQUETTE_PASSWORD"  # of the environment: the list of processes shows command lines to everybody

Port = Annotated[int, Field(ge=0, le=65_535)]


class StudioSettings(StageConfig):
    """Where the studio keeps what it is given, and who may reach it."""

    group: ClassVar[str] = "Studio"
    has_pages: ClassVar[bool] = True  # on which settings are changed, to be kept in the data folder

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
    """Password that browsers and programs are asked for, 8 characters or more; otherwise MAQUETTE_PASSWORD of the
    environment, which the list of processes does not show."""
    api: bool = False
    """Answer programs that speak A1111's API (/sdapi/v1) or OpenAI's (/v1) from this computer without the page's
    token; with a password they give that."""
    base: str = "pocket"
    """Base model that is chosen where a project names none: "pocket", a .safetensors file or a diffusers folder."""
    bases: Path | None = None
    """Folder of base models; otherwise `bases` in `data`."""
    loras: list[Path] = Field(default_factory=list)
    """Further folders of LoRA files for the playground."""

    @field_validator("base")
    @classmethod
    def _placed(cls, base: str) -> str:
        """Jobs work in folders of their own: what is named from here is named by its whole path."""
        path = at_home(base)
        return base if base == "pocket" or not path.exists() else str(path.absolute())

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.lan and not self.password:
            raise ValueError(
                "lan lets other computers in: give a password (--password) of 8 characters or "
                f"more, or set {PASSWORD_VARIABLE} in the environment"
            )
        return self

    @property
    def folder(self) -> Path:
        """The data folder, absolute."""
        return at_home(self.data).absolute()

    @property
    def address(self) -> str:
        """Address to listen on."""
        return self.host or ("0.0.0.0" if self.lan else "127.0.0.1")

    @property
    def bases_folder(self) -> Path:
        return at_home(self.bases or self.folder / "bases").absolute()


def with_password(values: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The options of a command, with the environment's password where they give none; an empty one is none."""
    password = environment.get(PASSWORD_VARIABLE)
    return {"password": password, **values} if password else dict(values)
