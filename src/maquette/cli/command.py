"""maquette command: a run as the training command of another program."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .common import print_json


def command(
    run: Annotated[Path, typer.Argument(help="Run folder.", show_default=False)],
    program: Annotated[
        str, typer.Option("--for", help="kohya (sd-scripts) or diffusers (its example scripts).")
    ] = "kohya",
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """The training command of another program that equals RUN. What has no equal there is listed on stderr, and at the
    head of the command, which then stops before it trains something else.

    Examples:

      maquette command runs/zkw-robot --for kohya > train.sh

      maquette command runs/zkw-robot --for diffusers
    """
    from ..stages import command as stage

    result = stage.run(run, program)
    if json_output:
        return print_json(result)
    print(result.command, end="")
    if result.no_equal:
        print(f"No equal in {result.program}:", file=sys.stderr)
        for line in result.no_equal:
            print(f"  {line}", file=sys.stderr)
