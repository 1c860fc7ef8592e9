"""maquette command: a run as the training command of another program."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..config.runs import CommandConfig
from .common import print_json
from .options import options_from


@options_from(CommandConfig, "run", names={"program": "for"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """The training command of another program that equals RUN. What has no equal there is listed on stderr, and at the
    head of the command, which then stops before it trains something else.

    Examples:

      maquette command runs/zkw-robot --for kohya > train.sh

      maquette command runs/zkw-robot --for diffusers
    """
    from ..stages import command as stage

    result = stage.run(CommandConfig.parse(values, "command"))
    if json_output:
        return print_json(result)
    print(result.command, end="")
    if result.no_equal:
        print(f"No equal in {result.program}:", file=sys.stderr)
        for line in result.no_equal:
            print(f"  {line}", file=sys.stderr)
