"""`maquette command`: the training command of other programs that equals a run, and what has no equal there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config import TrainConfig
from ..errors import MaquetteError
from ..interop.diffusers import Diffusers
from ..interop.kohya.command import Kohya
from ..interop.text import CommandResult, Writer
from ..run_folder import RunFolder

WRITERS: dict[str, type[Writer]] = {"kohya": Kohya, "diffusers": Diffusers}


def run(folder: str | Path, program: str) -> CommandResult:
    """The command for the run in `folder`. Raises MaquetteError where there is none or the program cannot do it."""
    opened = RunFolder.open(folder)
    config = TrainConfig.read(opened.config)
    if config.out is None:
        config = TrainConfig.parse(config.model_dump(exclude_unset=True) | {"out": opened.path}, str(opened.config))
    return command_for(config, program, _facts(opened))


def command_for(config: TrainConfig, program: str, facts: dict[str, str] | None = None) -> CommandResult:
    """The command for a configuration with its numbers filled in. facts: a checkpoint's metadata, for the family."""
    if program not in WRITERS:
        raise MaquetteError(f"There is no command for {program!r}; known are {' and '.join(WRITERS)}.")
    if config.method == "pivotal" or (program == "diffusers" and config.method in ("locon", "loha", "lokr")):
        raise MaquetteError(f"{program} has no training script for the method {config.method}.")
    return WRITERS[program](config, facts or {}).result()


def _facts(run: RunFolder) -> dict[str, Any]:
    """What the newest checkpoint says of its base."""
    from ..formats import safetensors  # which imports torch

    files = list(run.checkpoints().values())
    return safetensors.read_metadata(files[-1]) if files else {}
