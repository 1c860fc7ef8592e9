"""`maquette command`: the training command of other programs that equals a run, and what has no equal there."""

from __future__ import annotations

from typing import Any

from ..config import TrainConfig
from ..config.runs import CommandConfig
from ..errors import MaquetteError
from ..events import Cancel, Listener, ignore
from ..interop.diffusers import Diffusers
from ..interop.kohya.command import Kohya
from ..interop.text import CommandResult, Writer
from ..run_folder import RunFolder

WRITERS: dict[str, type[Writer]] = {"kohya": Kohya, "diffusers": Diffusers}


def run(config: CommandConfig, on_event: Listener = ignore, cancel: Cancel | None = None) -> CommandResult:
    """The command for a run. Raises MaquetteError where there is none or the program cannot do it."""
    opened = RunFolder.open(config.run)
    training = TrainConfig.read(opened.config)
    if training.out is None:
        training = TrainConfig.parse(training.model_dump(exclude_unset=True) | {"out": opened.path}, str(opened.config))
    return command_for(training, config.program, _facts(opened))


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
