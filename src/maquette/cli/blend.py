"""maquette blend: several checkpoints as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Display, given, print_json


def command(
    out: Annotated[Path, typer.Option(help="File or folder to write.", show_default=False)],
    models: Annotated[
        list[Path] | None, typer.Argument(help="A B [C]: files, diffusers folders or pocket.", show_default=False)
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="weighted-sum, add-difference, triple-sum, sum-twice, train-difference, smooth-add, cosine-a, "
            "cosine-b, slerp, ties, dare, della, geometric, median or clamp."
        ),
    ] = None,
    alpha: Annotated[float | None, typer.Option(help="Share of B, or of the difference.")] = None,
    beta: Annotated[float | None, typer.Option(help="The second share of triple-sum and sum-twice.")] = None,
    alpha_unet: Annotated[float | None, typer.Option(help="Alpha of the UNet alone.")] = None,
    alpha_te: Annotated[float | None, typer.Option(help="Alpha of the text encoders alone.")] = None,
    alpha_vae: Annotated[float | None, typer.Option(help="Alpha of the VAE alone; 0 keeps A's.")] = None,
    blocks: Annotated[str | None, typer.Option(help="Alpha block by block: numbers or a preset (GRAD_V …).")] = None,
    block_presets: Annotated[Path | None, typer.Option(help="File of your own presets.")] = None,
    density: Annotated[float | None, typer.Option(help="Share of a change that ties, dare and della keep.")] = None,
    seed: Annotated[int | None, typer.Option(help="For what dare and della drop by chance.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML with [models] and [[steps]] instead of A B C.")] = None,
    bake_vae: Annotated[Path | None, typer.Option(help="Put this VAE into the result.")] = None,
    make_inpainting: Annotated[
        Path | None, typer.Option(metavar="CUSTOM", help="Teach CUSTOM to inpaint; A B: inpainting model and base.")
    ] = None,
    pix2pix: Annotated[bool | None, typer.Option(help="With --make-inpainting: instruct-pix2pix instead.")] = None,
    dtype: Annotated[str | None, typer.Option(help="fp16, bf16 or fp32; otherwise as A.")] = None,
    half_vae: Annotated[
        str | None, typer.Option(metavar="yes|no", help="Cast the VAE too; no keeps its precision.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Arithmetic in fp32 or fp64.")] = None,
    threads: Annotated[int | None, typer.Option(help="Tensors computed at a time.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """One checkpoint of several, tensor by tensor, without loading any of them whole.

    Examples:

      maquette blend me-in-sd15.safetensors me-in-realistic.safetensors --alpha 0.5 --out me.safetensors

      maquette blend realistic.safetensors me.safetensors sd15.safetensors --mode add-difference --out me-realistic.ckpt

      maquette blend sd15-inpainting.ckpt sd15.ckpt --make-inpainting me.safetensors --out me-inpainting.safetensors

      maquette blend --recipe mine.toml --out mine.safetensors
    """
    from ..stages.blend import BlendConfig, run

    values = given(
        models=models or [],
        out=out,
        mode=mode,
        alpha=alpha,
        beta=beta,
        alpha_unet=alpha_unet,
        alpha_te=alpha_te,
        alpha_vae=alpha_vae,
        blocks=blocks,
        block_presets=block_presets,
        density=density,
        seed=seed,
        recipe=recipe,
        bake_vae=bake_vae,
        make_inpainting=make_inpainting,
        pix2pix=pix2pix,
        dtype=dtype,
        half_vae=half_vae,
        precision=precision,
        threads=threads,
    )
    with Display() as display:
        result = run(BlendConfig.parse(values, "blend"), display)
    if json_output:
        print_json(result)
