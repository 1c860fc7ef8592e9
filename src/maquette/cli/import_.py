"""maquette import: another program's training configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..config.runs import ImportConfig
from .common import print_json
from .options import options_from


@options_from(ImportConfig, "program", "file")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Turn a training configuration of PROGRAM into maquette's. What has no equal here is listed on stderr.

    Examples:

      maquette import kohya train.sh --out my.toml

      maquette train --config my.toml
    """
    from ..stages.import_ import run

    config = ImportConfig.parse(values, "import")
    result, out = run(config), config.out
    if json_output:
        return print_json(result)
    if out is None:
        print(result.toml, end="")
    else:
        print(f"{out} is written. Train with: {_training(result.to_name, out)}")
    if out is None and result.to_name:
        print(f"Still to name: {' and '.join(result.to_name)}, as in {_training(result.to_name, Path('my.toml'))}",
              file=sys.stderr)  # fmt: skip
    for title, lines in (("No equal here:", result.no_equal), ("Not needed here:", result.needless)):
        if lines:
            print(title, *(f"  {line}" for line in lines), sep="\n", file=sys.stderr)


def _training(to_name: list[str], out: Path) -> str:
    """The command that trains, with what the file leaves open."""
    photos = " PHOTOS" if "photos" in to_name else ""
    base = " --base MODEL" if "base" in to_name else ""
    return f"maquette train{photos}{base} --config {out}"
