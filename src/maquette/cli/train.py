"""maquette train: from photos to a LoRA file, and going on with a run."""

from __future__ import annotations

import itertools
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config import TrainConfig, parse_setting
from ..errors import MaquetteError
from ..parsing import read_toml
from .common import KINDS, Display, print_json
from .interrupt import interruptible
from .options import options_from
from .start import INTERRUPTED

if TYPE_CHECKING:
    from ..stages.train import TrainResult

# Keys that are options of their own; the others are given with --set.
SHORT = (
    "photos",
    "subject",
    "kind",
    "base",
    "vae",
    "method",
    "reg",
    "steps",
    "epochs",
    "rank",
    "out",
    "keep_state",
    "two_pass",
    "stop",
)


@options_from(TrainConfig, "photos", only=SHORT, optional=("photos",))
def command(
    values: dict[str, Any],
    config: Annotated[
        Path | None, typer.Option(help="TOML file of keys and values; the command line wins over it.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Any other key, as key=value; may be given again.")
    ] = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key of --set and --config, and stop.")] = False,
    resume: Annotated[
        Path | None, typer.Option(help="Go on with the run in this folder, to the same file as without a stop.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train a LoRA on PHOTOS. Ctrl-C finishes the step, saves, and says how to go on.

    Examples:

      maquette train photos/ --subject "zkw robot"

      maquette train photos/ --subject "ohwx man" --base sd15.safetensors --rank 32 --set learning_rate=5e-5

      maquette train --resume runs/zkw-robot
    """
    if keys:
        return _list_keys()
    values |= dict(parse_setting(setting) for setting in settings or [])
    if resume is None:
        values = (read_toml(config) if config else {}) | values
        if "photos" not in values:
            raise MaquetteError('Which photos? maquette train PHOTOS --subject "ohwx man"')
    elif config is not None or "photos" in values:
        raise MaquetteError("--resume goes on with the run's own photos and configuration; leave the others out.")
    from ..stages import train

    cancel = threading.Event()
    with interruptible(cancel), Display() as display:
        if resume is not None:
            result = train.resume(resume, values, display, cancel)
        else:
            source = str(config) if config else "the command line"
            result = train.run(TrainConfig.parse(values, source), display, cancel)
    if os.environ.get("RANK", "0") == "0":  # of several processes the first one speaks
        _say(result, json_output, bool(values.get("two_pass")))


def _list_keys() -> None:
    """Print every key under the heading of its group."""
    for group, found in itertools.groupby(TrainConfig.model_fields, TrainConfig.group_of):
        print(f"{group}:")
        for key in found:
            print(f"  {key:26} {TrainConfig.describe(key)}")


def _say(result: TrainResult, as_json: bool, two_pass: bool) -> None:
    """Print what became of the run. Raises typer.Exit where it was stopped."""
    if as_json:
        print_json(result)
    elif result.status == "stopped":
        _say_how_to_go_on(result, two_pass)
    else:
        _say_what_was_made(result)
    if result.status == "stopped":
        raise typer.Exit(INTERRUPTED)


def _say_how_to_go_on(result: TrainResult, two_pass: bool) -> None:
    print(f"Stopped at step {result.step} of {result.steps}; everything is saved. Go on with", end="")
    if two_pass:
        return print(" the same command.")
    print(":")
    print(f"  maquette train --resume {result.run}")


def _say_what_was_made(result: TrainResult) -> None:
    speed = f"{result.seconds:.0f} s, {result.images_per_second:.1f} images/s"
    first = result.start + 1
    made = f"Steps {first} to {result.steps}"
    if first == 1:
        made = f"{result.steps} step{'' if result.steps == 1 else 's'}"
    if result.start < result.steps:  # else the run had only its last files to write
        print(f"{made} in {speed}.")
    for sentence in result.reasons:
        print(sentence)
    print(f"{KINDS[result.product]:7} {result.file}")
    print(f"Report: {result.report}")
