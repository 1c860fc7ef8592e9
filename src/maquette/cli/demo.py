"""maquette demo: the whole road, on pictures that the program draws itself."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.runs import DemoConfig
from .options import options_from

if TYPE_CHECKING:
    from ..stages.demo import DemoResult


@options_from(DemoConfig)
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw 14 photos of a small robot, check them, train a LoRA on them, and show before and after.

    Examples:

      maquette demo

      maquette demo --out runs/robot --steps 100
    """
    from ..stages.demo import run
    from .common import Display, print_json
    from .interrupt import interruptible
    from .start import INTERRUPTED

    cancel = threading.Event()
    with interruptible(cancel), Display() as display:
        result = run(DemoConfig.parse(values, "demo"), display, cancel)
    if json_output:
        print_json(result)
    else:
        say(result)
    if result.status == "stopped":
        raise typer.Exit(INTERRUPTED)


def say(result: DemoResult) -> None:
    """Print for a person what was made, and how to go on."""
    print(result.figures[0])
    if result.status == "stopped":
        print("Stopped; everything is saved. Go on with:")
    else:
        print(f"Trained in {result.training_seconds:.0f} s, {result.seconds:.0f} s in all.")
        for sentence in result.reasons:
            print(sentence)
        print(f"Photos:       {result.photos}")
        print(f"LoRA:         {result.file}")
        print(f"Before/after: {result.before_after}")
        print(f"Report:       {result.report}")
        print("\nGo on with:")
    for line in result.commands:
        print(f"  {as_typed_here(line)}")


def as_typed_here(line: str) -> str:
    """A command line with the program's path where `maquette` alone would not find this installation."""
    program = Path(sys.executable).parent / "maquette"
    found = shutil.which("maquette")
    if not program.exists() or (found and os.path.samefile(found, program)):
        return line
    shown = os.path.relpath(program) if program.is_relative_to(Path.cwd()) else str(program)
    return f"{shown}{line.removeprefix('maquette')}" if line.startswith("maquette ") else line
