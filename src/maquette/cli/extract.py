"""maquette extract: a LoRA out of the difference of two models."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Display, given, print_json
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.extract import ExtractResult


def command(
    tuned: Annotated[Path, typer.Argument(help="The trained model (file or folder).", show_default=False)],
    base: Annotated[Path, typer.Option(help="The model it was trained from.", show_default=False)],
    out: Annotated[Path, typer.Option(help="File to write.", show_default=False)],
    method: Annotated[str | None, typer.Option(help="lora (default), locon or lokr.")] = None,
    rank: Annotated[int | None, typer.Option(help="The rank; with a rule, the largest one.")] = None,
    conv_rank: Annotated[int | None, typer.Option(help="The same for 3x3 convolutions.")] = None,
    energy: Annotated[float | None, typer.Option(help="Share of each layer's squared difference to keep.")] = None,
    ratio: Annotated[float | None, typer.Option(help="Keep singular values down to largest / ratio.")] = None,
    fro: Annotated[float | None, typer.Option(help="Share of each difference's Frobenius norm to keep.")] = None,
    cumulative: Annotated[float | None, typer.Option(help="Share of the sum of singular values to keep.")] = None,
    dora: Annotated[bool | None, typer.Option("--dora", help="Keep magnitudes apart, exactly.")] = None,
    dora_axis: Annotated[str | None, typer.Option(help="input (A1111) or output (diffusers).")] = None,
    factor: Annotated[int | None, typer.Option(help="Side of LoKr's smaller matrix.")] = None,
    text_encoder: Annotated[str | None, typer.Option(metavar="yes|no", help="The text encoders too.")] = None,
    clamp_quantile: Annotated[float | None, typer.Option(help="Limit factors to this quantile (sd-scripts).")] = None,
    min_difference: Annotated[float | None, typer.Option(help="Leave out layers that differ by no more.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; otherwise as TUNED.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write the LoRA that turns BASE into about TUNED, and say how much of the difference it holds.

    Examples:

      maquette extract mine.safetensors --base sd15.safetensors --rank 32 --out mine-lora.safetensors

      maquette extract mine.safetensors --base sd15.safetensors --energy 0.9 --method locon --out mine-lora.safetensors

      maquette extract mine.safetensors --base sd15.safetensors --rank 16 --dora --out mine-dora.safetensors
    """
    from ..stages.extract import ExtractConfig, run

    values = given(
        tuned=tuned,
        base=base,
        out=out,
        method=method,
        rank=rank,
        conv_rank=conv_rank,
        energy=energy,
        ratio=ratio,
        fro=fro,
        cumulative=cumulative,
        dora=dora,
        dora_axis=dora_axis,
        factor=factor,
        text_encoder=text_encoder,
        clamp_quantile=clamp_quantile,
        min_difference=min_difference,
        dtype=dtype,
    )
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
    told = ", ".join(f"{'whole factors' if rank is None else rank} ({n})" for rank, n in ranks.most_common(4))
    worst = min(result.layers, key=lambda layer: layer["kept"])
    facts = [
        ("layers", f"{len(result.layers)}, of which the rank is {told}{' …' if len(ranks) > 4 else ''}"),
        ("kept", f"{100 * result.kept:.2f} % of these layers' difference (energy)"),
        ("least in a layer", f"{100 * worst['kept']:.2f} %, {worst['name']}"),
        ("kept of all", f"{100 * result.kept_of_all:.2f} % of every difference of UNet and text encoders"),
    ]
    if result.unchanged:
        facts.append(("unchanged", f"{result.unchanged} layers"))
    facts += [(f"not held: {kind}", f"{100 * share:.2f} % of all") for kind, share in result.left_out.items()]
    screen.table([*facts, ("size", f"{result.size_bytes / 1e6:.2f} MB")])
