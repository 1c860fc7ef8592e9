"""A training as text: TOML, a command line, Kohya's command. Without folders of this computer."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..config import TrainConfig, toml_text
from ..config.base import toml_value
from ..errors import MaquetteError

if TYPE_CHECKING:
    from .core import Studio
    from .store import Project

OPTIONS = ("subject", "kind", "base", "method", "steps", "epochs", "rank", "stop")


def toml(config: Mapping[str, Any]) -> str:
    """A file for `maquette train --config`, of the keys that say something."""
    parsed = TrainConfig.parse(dict(config) | {"photos": "photos"}, "the training")
    return toml_text(parsed.model_dump(mode="json", exclude_unset=True, exclude_none=True))


def command(config: Mapping[str, Any]) -> str:
    """The command line that does the same."""
    parts = ["maquette", "train", "photos"]
    for key, value in config.items():
        if key in OPTIONS:
            parts += [f"--{key}", str(value)]
        else:
            parts += ["--set", f"{key}={toml_value(value)}"]
    return shlex.join(parts)


def kohya(studio: Studio, project: Project, config: Mapping[str, Any]) -> str:
    """Kohya's command that equals it, or why there is none."""
    sizes = sorted(list(photo.size_trained) for photo in project.used())
    if not sizes:
        return "There are no photos yet."
    asked = json.loads(json.dumps(dict(config) | {"photos": "photos", "out": "runs/lora"}))
    try:
        reply = studio.facts.ask({"ask": "kohya", "config": asked, "sizes": sizes})
    except MaquetteError as error:
        return str(error)
    return str(reply["command"])
