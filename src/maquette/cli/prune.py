"""maquette prune: a LoRA without the blocks that do not matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.weights import PruneConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.prune import PruneResult


@options_from(PruneConfig, "lora")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write LORA without the blocks that change least of what BASE predicts, and say how much each is worth.

    Examples:

      maquette prune person.safetensors --base sd15.safetensors --out person-small.safetensors

      maquette prune person.safetensors --base sd15.safetensors --blocks BASE,IN01 --out person-small.safetensors
    """
    from ..stages.prune import run

    with Display() as display:
        result = run(PruneConfig.parse(values, "prune"), display)
    if json_output:
        print_json(result)
    else:
        show(result)


def show(result: PruneResult) -> None:
    """Print what each block is worth, for a person."""
    screen = Screen()
    rows = [
        (one["block"], one["modules"], f"{one['bytes'] / 1e6:.2f} MB", f"{100 * one['effect']:.1f} %",
         "left out" if one["dropped"] else "")
        for one in result.blocks
    ]  # fmt: skip
    screen.table(rows, ("block", "modules", "size", "effect", ""))
    screen.line(
        f"without them {100 * result.effect:.1f} % of the effect is lost; "
        f"{result.size_before / 1e6:.2f} MB to {result.size_bytes / 1e6:.2f} MB"
    )
