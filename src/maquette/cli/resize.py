"""maquette resize: a LoRA at another rank."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.weights import ResizeConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.resize import ResizeResult


@options_from(ResizeConfig, "lora")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write LORA at another rank: for each layer the best approximation of that rank, or of the rank a rule gives.

    Examples:

      maquette resize person.safetensors --rank 8 --out person-8.safetensors

      maquette resize person.safetensors --energy 0.95 --rank 32 --out small.safetensors

      maquette resize person.safetensors --target-size 20MB --out small.safetensors
    """
    from ..stages.resize import run

    with Display() as display:
        result = run(ResizeConfig.parse(values, "resize"), display)
    if json_output:
        print_json(result)
    else:
        show(result)


def show(result: ResizeResult) -> None:
    """Print what was kept, for a person."""
    screen = Screen()
    ranks = Counter((module["before"], module["after"]) for module in result.modules)
    shown = ", ".join(f"{before} to {after} ({n})" for (before, after), n in ranks.most_common(4))
    worst = min(result.modules, key=lambda module: module["kept"])
    screen.table(
        [
            ("ranks", shown + (" …" if len(ranks) > 4 else "")),
            ("energy kept", f"{100 * result.kept:.2f} %"),
            ("least in a layer", f"{100 * worst['kept']:.2f} %, {worst['name']}"),
            ("size", f"{result.size_before / 1e6:.2f} MB to {result.size_bytes / 1e6:.2f} MB"),
        ]
    )
