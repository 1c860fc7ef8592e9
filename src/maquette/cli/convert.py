"""maquette convert: a model or an adapter in another layout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Display, given, print_json
from .terminal import Screen


def command(
    source: Annotated[Path, typer.Argument(help="Model file, diffusers folder or LoRA file.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            help="single-file or diffusers-dir (models); kohya, diffusers, peft, comfyui, onetrainer or attn-procs "
            "(LoRA).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="File or folder to write.", show_default=False)],
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; otherwise as it is.")] = None,
    half_vae: Annotated[
        str | None, typer.Option(metavar="yes|no", help="Cast the VAE too; no keeps its precision.")
    ] = None,
    ema: Annotated[bool | None, typer.Option(help="Use a training checkpoint's averaged weights.")] = None,
    unet: Annotated[Path | None, typer.Option(help="Take the UNet of this file or folder instead.")] = None,
    vae: Annotated[Path | None, typer.Option(help="Take the VAE of this file or folder instead.")] = None,
    prediction_type: Annotated[
        str | None, typer.Option(help="epsilon, v_prediction or flow, where the file's own statement is wrong.")
    ] = None,
    lossy: Annotated[
        bool | None, typer.Option("--lossy", help="Write what TO cannot carry as the LoRA nearest to it.")
    ] = None,
    rank: Annotated[int | None, typer.Option(help="Rank of these LoRAs.")] = None,
    base: Annotated[
        Path | None, typer.Option(help="The model, where the LoRA's change follows from it (DoRA, OFT).")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write SOURCE in another layout with the same numbers and, for single files, the names it came with.

    Examples:

      maquette convert old.ckpt --to single-file --out new.safetensors --dtype fp16

      maquette convert model.safetensors --to diffusers-dir --out model/

      maquette convert person.safetensors --to diffusers --out person-diffusers.safetensors

      maquette convert loha.safetensors --to diffusers --lossy --rank 16 --out person-diffusers.safetensors
    """
    from ..stages.convert import ConvertConfig, run

    values = given(
        source=source,
        to=to,
        out=out,
        dtype=dtype,
        half_vae=half_vae,
        ema=ema,
        unet=unet,
        vae=vae,
        prediction_type=prediction_type,
        lossy=lossy,
        rank=rank,
        base=base,
    )
    with Display() as display:
        result = run(ConvertConfig.parse(values, "convert"), display)
    if json_output:
        print_json(result)
    elif result.modules:
        Screen().line(f"{result.written}/{result.modules} modules, {len(result.dropped)} dropped")
