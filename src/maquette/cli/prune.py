"""maquette prune: a LoRA without the blocks that do not matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Display, given, print_json
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.prune import PruneResult


def command(
    lora: Annotated[Path, typer.Argument(help="LoRA file of any program.", show_default=False)],
    base: Annotated[str, typer.Option(help="Model to measure on: pocket, a file or a folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    blocks: Annotated[
        str | None, typer.Option(help="Leave out these, like IN01,OUT11; otherwise the weakest.", show_default=False)
    ] = None,
    limit: Annotated[float | None, typer.Option(help="Share of the LoRA's effect that may be lost; 0.05.")] = None,
    prompt: Annotated[
        str | None, typer.Option(help="Predict for this text; otherwise the trigger words.", show_default=False)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the noise.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write LORA without the blocks that change least of what BASE predicts, and say how much each is worth.

    Examples:

      maquette prune person.safetensors --base sd15.safetensors --out person-small.safetensors

      maquette prune person.safetensors --base sd15.safetensors --blocks BASE,IN01 --out person-small.safetensors
    """
    from ..stages.prune import PruneConfig, run

    values = given(lora=lora, base=base, out=out, blocks=blocks, limit=limit, prompt=prompt, seed=seed)
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
