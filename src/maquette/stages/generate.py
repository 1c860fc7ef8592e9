"""`maquette generate`: pictures from a prompt, with LoRAs named in it, each with the text that makes it again."""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ..data.images import find_photos
from ..errors import MaquetteError
from ..events import Cancel, Event, Listener, ignore
from ..families.base import BaseModel
from ..files import NameTakenError, require_place
from ..formats.picture_files import SUFFIXES, write_picture
from ..sampling.draw_settings import GenerateConfig
from ..sampling.file_names import Picture, file_name, require_known
from ..sampling.infotext import cfg_scale
from ..sampling.opening import require_unasked
from ..sampling.pipeline import Drawn, Pipeline
from ..sampling.prompt_file import read_prompts
from .comfy_workflow import written

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["GenerateConfig", "GenerateResult", "cfg_scale", "run"]


@dataclass
class GenerateResult(Sequence["Image"]):
    """The pictures, in order: a sequence of Pillow images, with their files, seeds and texts beside it."""

    paths: list[str]
    seeds: list[int]
    infotexts: list[str]
    seconds: float
    warnings: list[str] = field(default_factory=list)
    images: list[Image] = field(default_factory=list, repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @overload
    def __getitem__(self, index: int) -> Image: ...
    @overload
    def __getitem__(self, index: slice) -> list[Image]: ...
    def __getitem__(self, index: int | slice) -> Image | list[Image]:
        return self.images[index]

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels."""
        keys = ("paths", "seeds", "infotexts", "seconds", "warnings")
        return {key: getattr(self, key) for key in keys}


def run(
    config: GenerateConfig,
    on_event: Listener = ignore,
    cancel: Cancel | None = None,
    base: BaseModel | Pipeline | None = None,
) -> GenerateResult:
    """Draw batch_size x batch_count pictures, for each picture of a folder that init_image names, and write them.

    base: one that is loaded already, or a Pipeline, which then keeps its LoRAs. Setting `cancel` ends after the batch
    at work; what is drawn is written. Raises MaquetteError for an unknown LoRA, a LoRA that does not fit, an unreadable
    init_image.
    """
    began = time.perf_counter()
    result = GenerateResult([], [], [], 0.0)
    cancel = cancel or Cancel()
    require_place(config.out)
    drawings = list(_each(config))
    if config.comfy and len(drawings) > 1:
        where = config.prompts_file if len(drawings) > len(_pictures(config.init_image)) else config.init_image
        raise MaquetteError(f"{config.comfy} is of one drawing, and {where} stands for several; draw them one by one.")

    def tell(event: Event) -> None:
        if event.kind == "warning":
            result.warnings.append(event.data["message"])
        on_event(event)

    with _pipeline(config, base) as pipeline:
        for notice in pipeline.notices if base is None else ():
            tell(Event("warning", {"message": notice}))
        for settings in drawings:
            if cancel.is_set():
                break
            settings = written(settings, pipeline.base, tell)
            pipeline.draw(settings, _Writer(settings, result, tell).write, tell, cancel)
    result.seconds = time.perf_counter() - began
    on_event(Event("done", result.to_json()))
    return result


@contextmanager
def _pipeline(config: GenerateConfig, base: BaseModel | Pipeline | None) -> Iterator[Pipeline]:
    """The one that is given, as it is; else one that leaves its base as it was."""
    if isinstance(base, Pipeline):
        require_unasked(**config.opening())
        yield base
        return
    with Pipeline(base or config.base, **config.opening()) as pipeline:
        yield pipeline


def _each(config: GenerateConfig) -> Iterator[GenerateConfig]:
    """The configuration, once for each line of a file of prompts and each picture of a folder to begin from."""
    require_known(config.file_name)
    lines = read_prompts(config.prompts_file) if config.prompts_file else []
    given = config.given()
    every = [GenerateConfig.parse({**given, **line}, where) for where, line in lines] or [config]
    for one in every:
        for picture in _pictures(config.init_image):
            yield one.model_copy(update={"init_image": picture})


def _pictures(place: Path | None) -> list[Path] | list[None]:
    """The picture itself, those of a folder, or one None."""
    if place is None:
        return [None]
    if not place.is_dir():
        return [place]
    found = find_photos(place)
    if not found:
        raise MaquetteError(f"The folder {place} holds no picture to begin from.")
    return found


class _Writer:
    """Writes pictures into the folder under the names asked for, and adds them to the result."""

    def __init__(self, config: GenerateConfig, result: GenerateResult, on_event: Listener) -> None:
        self.config, self.result, self.on_event = config, result, on_event
        self.number = _next_number(config.out)
        self.index = 0

    def write(self, drawn: Drawn) -> None:
        path = self._written(drawn)
        self.number += 1
        self.index += 1
        self.result.paths.append(str(path))
        self.result.seeds.append(drawn.seed)
        self.result.infotexts.append(drawn.infotext)
        self.result.images.append(drawn.image)
        self.on_event(Event("saved", {"path": str(path)}))

    def _written(self, drawn: Drawn) -> Path:
        """Write it under a name that no file has, with a number behind it where one has it, also one that another
        process makes at this moment.
        """
        begun = self.config.init_image
        picture = Picture(
            drawn.prompt,
            drawn.negative_prompt,
            drawn.values,
            self.number,
            self.index,
            begun.stem if begun else "",
            datetime.datetime.now(),
        )
        name, suffix = file_name(self.config.file_name, picture), SUFFIXES[self.config.image_format]
        names = chain([name], (f"{name}-{i}" for i in count(1)))
        for path in (self.config.out / f"{each}{suffix}" for each in names):
            if not path.exists():
                with suppress(NameTakenError):
                    write_picture(drawn.image, path, drawn.infotext, self.config.quality, new=True)
                    return path
        raise AssertionError  # names never end


def _next_number(folder: Path) -> int:
    """One more than the highest number that a file in the folder begins with."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name[:5]) for name in names if name[:5].isdecimal() and name[5:6] in "-."), default=0) + 1
