"""Models beside a pipeline's base: another base for the second drawing, SDXL's refiner, ControlNets, upscalers.

Each is opened once and kept as long as drawings use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from .. import families
from ..families import controlnet, upscaler
from ..families.base import BaseModel
from ..families.controlnet import ControlNet
from ..families.sdxl import refiner
from ..families.sdxl.refiner import Refiner
from ..families.upscaler import Upscaler
from .draw_settings import DrawSettings
from .enlarging import UPSCALERS
from .hot_loras import HotLoras
from .opening import quickened

Model = TypeVar("Model")


class Others:
    """Models by kind and file, in the dtype and on the device of a pipeline's base."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self._held: dict[tuple[str, str], Any] = {}

    def second(self, settings: DrawSettings) -> HotLoras | None:
        """Another base for the second drawing, with the LoRAs in its weights; None where it is the same."""
        path = settings.hires_base
        if not settings.hires or path is None or path == self.base.source:
            return None
        return self._open("base", path, lambda *how: HotLoras(quickened(families.load(path, *how))))

    def refiner(self, settings: DrawSettings) -> Refiner | None:
        """The refiner that settings name."""
        path = settings.refiner
        return None if path is None else self._open("refiner", path, lambda *how: quickened(refiner.load(path, *how)))

    def upscaler(self, settings: DrawSettings) -> str | Upscaler:
        """The upscaler of hires fix: a name, or a network."""
        path = settings.hires_upscaler
        if not settings.hires or path in UPSCALERS:
            return path
        return self._open("upscaler", path, lambda *how: upscaler.load(path, *how))

    def control(self, path: str) -> ControlNet:
        """A ControlNet."""
        return self._open("control", path, lambda *how: controlnet.load(path, *how))

    def keep(self, settings: DrawSettings) -> None:
        """Forget what this drawing does not use."""
        used = {("control", unit.model) for unit in settings.controls}
        used |= {("base", str(settings.hires_base)), ("refiner", str(settings.refiner))}
        used.add(("upscaler", settings.hires_upscaler))
        self._held = {key: model for key, model in self._held.items() if key in used}

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()

    def _open(self, kind: str, path: str, load: Callable[[torch.dtype, torch.device], Model]) -> Model:
        if (kind, path) not in self._held:
            first = next(self.base.network.parameters())
            self._held[kind, path] = load(first.dtype, first.device)
        model: Model = self._held[kind, path]
        return model
