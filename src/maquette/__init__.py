"""Maquette: from a folder of photos to a LoRA that makes Stable Diffusion draw their subject.

Every stage is a function here, with the options of the command line as keywords; a wrong one is a MaquetteError.

    result = maquette.train("photos/", subject="zkw robot")
    pictures = maquette.generate("a photo of zkw robot <lora:zkw-robot:0.8>", lora_dir=result.run).images
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .errors import MaquetteError

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from .families.base import BaseModel
    from .run import Event
    from .stages.check import CheckResult
    from .stages.generate import GenerateResult
    from .stages.train import TrainResult

    Listener = Callable[[Event], None]

__all__ = ["MaquetteError", "check", "generate", "train"]

_SUBPACKAGES = {"core", "data", "families", "formats", "methods", "prompts", "stages"}


def check(photos: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> CheckResult:
    """What is wrong with a folder of photos, and what training on it costs. options: keys of CheckConfig."""
    from .run import ignore
    from .stages.check import CheckConfig, run

    return run(CheckConfig.parse({"photos": photos, **options}, "check"), on_event or ignore)


def train(photos: str | PathLike[str], on_event: Listener | None = None, **options: Any) -> TrainResult:
    """Train a LoRA on a folder of photos, into a new run folder. options: keys of config.TrainConfig."""
    from .config import TrainConfig
    from .run import ignore
    from .stages.train import run

    return run(TrainConfig.parse({"photos": photos, **options}, "train"), on_event or ignore)


def generate(
    prompt: str, on_event: Listener | None = None, base: str | PathLike[str] | BaseModel = "pocket", **options: Any
) -> GenerateResult:
    """Draw pictures and write them as PNG files. options: keys of stages.generate.GenerateConfig.

    base: "pocket", a path, or a base that `maquette.families.load` has opened, which saves loading it again.
    """
    from os import fspath

    from .families.base import BaseModel
    from .run import ignore
    from .stages.generate import GenerateConfig, run

    opened = base if isinstance(base, BaseModel) else None
    source = opened.source if opened else fspath(base)  # type: ignore[arg-type]
    return run(
        GenerateConfig.parse({"prompt": prompt, "base": source, **options}, "generate"), on_event or ignore, opened
    )


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
