"""maquette merge: LoRAs into a checkpoint, or several LoRAs into one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Display, given, print_json


def command(
    out: Annotated[Path, typer.Option(help="File or folder to write.", show_default=False)],
    lora: Annotated[
        list[str],
        typer.Option(help="FILE[:W[,te=W][,unet=W][,lbw=PRESET or list]]; may be given again.", show_default=False),
    ],
    base: Annotated[
        Path | None, typer.Argument(help="Model file, diffusers folder, or pocket.", show_default=False)
    ] = None,
    to: Annotated[str | None, typer.Option(help="checkpoint, or lora: one LoRA instead of several.")] = None,
    rank: Annotated[int | None, typer.Option(help="With --to lora: the rank; otherwise exact.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; otherwise as the base.")] = None,
    half_vae: Annotated[
        str | None, typer.Option(metavar="yes|no", help="Cast the VAE too; no keeps its precision.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Arithmetic in fp32 or fp64.")] = None,
    lossy: Annotated[bool | None, typer.Option(help="Leave out modules that are no layer of the base.")] = None,
    block_presets: Annotated[Path | None, typer.Option(help="File of your own presets for lbw.")] = None,
    threads: Annotated[int | None, typer.Option(help="Tensors computed at a time.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Put LoRAs of any kind into BASE for good, tensor by tensor: the same pictures as with <lora:…> in the prompt.

    Examples:

      maquette merge sd15.safetensors --lora me.safetensors:0.8 --out me-sd15.safetensors

      maquette merge sd15.ckpt --lora me.safetensors:0.8,te=0.5 --lora style.safetensors:0.6,lbw=OUTALL --out x.ckpt

      maquette merge --to lora --lora me.safetensors:0.8 --lora style.safetensors:0.6 --rank 32 --out both.safetensors
    """
    from ..stages.merge import MergeConfig, run

    values = given(
        base=base,
        loras=lora,
        out=out,
        to=to,
        rank=rank,
        dtype=dtype,
        half_vae=half_vae,
        precision=precision,
        lossy=lossy,
        block_presets=block_presets,
        threads=threads,
    )
    with Display() as display:
        result = run(MergeConfig.parse(values, "merge"), display)
    if json_output:
        print_json(result)
