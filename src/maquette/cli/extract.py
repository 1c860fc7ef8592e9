"""maquette extract: a LoRA out of the difference of two models."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.weights import ExtractConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.extract import ExtractResult


@options_from(ExtractConfig, "tuned")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the LoRA that turns BASE into about TUNED, and say how much of the difference it holds.

    Examples:

      maquette extract mine.safetensors --base sd15.safetensors --rank 32 --out mine-lora.safetensors

      maquette extract mine.safetensors --base sd15.safetensors --energy 0.9 --method locon --out mine-lora.safetensors

      maquette extract mine.safetensors --base sd15.safetensors --rank 16 --dora --out mine-dora.safetensors
    """
    from ..stages.extract import run

    with Display() as display:
        result = run(ExtractConfig.parse(values, "extract"), display)
    if json_output:
        print_json(result)
    else:
        show(result)


def show(result: ExtractResult) -> None:
    """Print what was kept, for a person."""
    screen = Screen()
    ranks = Counter(layer["rank"] for layer in result.layers)
    shown = ", ".join(f"{'whole factors' if rank is None else rank} ({n})" for rank, n in ranks.most_common(4))
    worst = min(result.layers, key=lambda layer: layer["kept"])
    facts = [
        ("layers", f"{len(result.layers)}, of which the rank is {shown}{' …' if len(ranks) > 4 else ''}"),
        ("kept", f"{100 * result.kept:.2f} % of these layers' difference (energy)"),
        ("least in a layer", f"{100 * worst['kept']:.2f} %, {worst['name']}"),
        ("kept of all", f"{100 * result.kept_of_all:.2f} % of every difference of UNet and text encoders"),
    ]
    if result.unchanged:
        facts.append(("unchanged", f"{result.unchanged} layers"))
    facts += [(f"not held: {kind}", f"{100 * share:.2f} % of all") for kind, share in result.left_out.items()]
    screen.table([*facts, ("size", f"{result.size_bytes / 1e6:.2f} MB")])
