"""maquette generate: pictures from a prompt, with LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    prompt: Annotated[str, typer.Argument(help="What to draw, in A1111's prompt language.", show_default=False)],
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    base: Annotated[str, typer.Option(help="Base model: pocket, a file or a diffusers folder.")] = "pocket",
    vae: Annotated[str | None, typer.Option(help="VAE file or folder instead of the base's own.")] = None,
    lora_dir: Annotated[
        Path | None, typer.Option(help="Folder of LoRA files, subfolders too; default: runs.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the pictures.")] = Path("out"),
    seed: Annotated[int | None, typer.Option(help="Of the first picture, the next plus one …; -1: draw one.")] = None,
    embedding_dir: Annotated[
        Path | None, typer.Option(help="Folder of textual inversion files, called by their names; default: embeddings.")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 20,
    cfg_scale: Annotated[float | None, typer.Option(help="Guidance; default: 4 on pocket, 7 elsewhere.")] = None,
    cfg_rescale: Annotated[
        float | None, typer.Option(help="Guidance without overexposure: 0 to 1, usually 0.7.")
    ] = None,
    sampler: Annotated[str, typer.Option(help="DDIM, Euler a, Euler, DPM++ 2M, UniPC, …")] = "DDIM",
    schedule_type: Annotated[
        str | None, typer.Option(help="Automatic, Uniform, Karras, Exponential, Beta, …", show_default=False)
    ] = None,
    eta: Annotated[
        float | None, typer.Option(help="Share of noise added again at steps; default: 1, DDIM 0.", show_default=False)
    ] = None,
    s_churn: Annotated[float | None, typer.Option(help="Noise before each step of Euler, Heun, DPM2.")] = None,
    s_tmin: Annotated[float | None, typer.Option(help="Lowest level of that noise.")] = None,
    s_tmax: Annotated[float | None, typer.Option(help="Highest level of that noise; 0: all.")] = None,
    s_noise: Annotated[float | None, typer.Option(help="Factor of noise added at steps.")] = None,
    discard_penultimate_sigma: Annotated[
        bool | None, typer.Option(help="Leave out the level before the last.", show_default=False)
    ] = None,
    noise_source: Annotated[
        str | None, typer.Option(help="CPU, NV (NVIDIA's numbers on any machine) or GPU.", show_default=False)
    ] = None,
    ensd: Annotated[int | None, typer.Option(help="A1111's eta noise seed delta.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the base's native size.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the base's native size.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn at once.")] = 1,
    batch_count: Annotated[int, typer.Option(min=1, help="Batches.")] = 1,
    clip_skip: Annotated[int, typer.Option(min=1, help="2 for bases trained so.")] = 1,
    emphasis: Annotated[str | None, typer.Option(help="Original, No norm, Ignore or None.")] = None,
    prompt_comments: Annotated[bool, typer.Option(help="Leave out what stands behind # in a prompt.")] = True,
    prompt_editing: Annotated[
        str | None, typer.Option(help="When [a:b:5] switches: A1111 (its pictures again) or exact (after step 5).")
    ] = None,
    init_image: Annotated[Path | None, typer.Option(help="Begin from this picture.")] = None,
    denoising_strength: Annotated[float | None, typer.Option(help="How far from it: 0 to 1, default 0.75.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw pictures. Each PNG carries the text that makes it again, as A1111 writes it.

    The prompt knows (more), [less], (exactly:1.3), BREAK, AND, [from:to:when], [a|b], # comments and <lora:NAME:0.8>.

    Examples:

      maquette generate "a photo of a cat on a red background" --seed 1 --batch-size 4

      maquette generate "a photo of zkw robot on a red background <lora:zkw-robot:0.8>" --lora-dir runs/zkw-robot

      maquette generate "a cat, noto style" --init-image photo.png --denoising-strength 0.6
    """
    from ..stages.generate import GenerateConfig, run
    from .common import Display, given, print_json

    values = given(
        prompt=prompt,
        negative_prompt=negative_prompt,
        base=base,
        vae=vae,
        lora_dir=lora_dir,
        embedding_dir=embedding_dir,
        out=out,
        seed=seed,
        steps=steps,
        cfg_scale=cfg_scale,
        cfg_rescale=cfg_rescale,
        sampler=sampler,
        schedule_type=schedule_type,
        eta=eta,
        s_churn=s_churn,
        s_tmin=s_tmin,
        s_tmax=s_tmax,
        s_noise=s_noise,
        discard_penultimate_sigma=discard_penultimate_sigma,
        noise_source=noise_source,
        ensd=ensd,
        width=width,
        height=height,
        batch_size=batch_size,
        batch_count=batch_count,
        clip_skip=clip_skip,
        emphasis=emphasis,
        prompt_comments=prompt_comments,
        prompt_editing=prompt_editing,
        init_image=init_image,
        denoising_strength=denoising_strength,
        device=device,
        dtype=dtype,
    )
    with Display() as display:
        result = run(GenerateConfig.parse(values, "generate"), display)
    if json_output:
        print_json(result)
