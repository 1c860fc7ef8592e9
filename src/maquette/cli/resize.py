"""maquette resize: a LoRA at another rank."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Display, given, print_json
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.resize import ResizeResult


def command(
    lora: Annotated[Path, typer.Argument(help="LoRA file of any program.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    rank: Annotated[int | None, typer.Option(help="The rank; with a rule, the largest one.")] = None,
    conv_rank: Annotated[int | None, typer.Option(help="The same for 3x3 convolutions.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of each change's energy to keep.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Keep singular values down to largest / ratio.")] = None,
    fro: Annotated[float | None, typer.Option(help="Share of each change's Frobenius norm to keep.")] = None,
    cumulative: Annotated[float | None, typer.Option(help="Share of the sum of singular values to keep.")] = None,
    target_size: Annotated[
        str | None, typer.Option(help="Largest size of the file, like 20MB; ranks follow.", show_default=False)
    ] = None,
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; otherwise as it is.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write LORA at another rank: for each layer the best approximation of that rank, or of the rank a rule gives.

    Examples:

      maquette resize person.safetensors --rank 8 --out person-8.safetensors

      maquette resize person.safetensors --energy 0.95 --rank 32 --out small.safetensors

      maquette resize person.safetensors --target-size 20MB --out small.safetensors
    """
    from ..stages.resize import ResizeConfig, run

    values = given(
        lora=lora,
        out=out,
        rank=rank,
        conv_rank=conv_rank,
        energy=energy,
        ratio=ratio,
        fro=fro,
        cumulative=cumulative,
        target_size=target_size,
        dtype=dtype,
    )
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
    told = ", ".join(f"{before} to {after} ({n})" for (before, after), n in ranks.most_common(4))
    worst = min(result.modules, key=lambda module: module["kept"])
    screen.table(
        [
            ("ranks", told + (" …" if len(ranks) > 4 else "")),
            ("energy kept", f"{100 * result.kept:.2f} %"),
            ("least in a layer", f"{100 * worst['kept']:.2f} %, {worst['name']}"),
            ("size", f"{result.size_before / 1e6:.2f} MB to {result.size_bytes / 1e6:.2f} MB"),
        ]
    )
