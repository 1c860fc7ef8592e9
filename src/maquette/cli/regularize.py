"""maquette regularize: draw regularization images of the class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Display, given, print_json


def command(
    out: Annotated[Path, typer.Argument(help="Folder for the pictures.", show_default=False)],
    base: Annotated[str | None, typer.Option(help="Base model that draws: the one that will be trained.")] = None,
    vae: Annotated[str | None, typer.Option(help="VAE file or folder instead of the base's own.")] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="What the base predicts, if its file does not say: epsilon, v_prediction, flow."),
    ] = None,
    photos: Annotated[Path | None, typer.Option("--for", help="Photos that they are for: number and class.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="Prompt; may be given again, shared out evenly.")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="How many; default: images x repeats of --for.")] = None,
    subject: Annotated[str | None, typer.Option(help='Rare word and class: "ohwx man".')] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="Repeats of the photos, as given to train.")] = None,
    negative_prompt: Annotated[str | None, typer.Option(help="What to keep away from.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the first picture.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    cfg_scale: Annotated[float | None, typer.Option(help="How strongly the prompt is followed.")] = None,
    sampler: Annotated[str | None, typer.Option(help='Sampler by A1111\'s name: "DPM++ 2M Karras".')] = None,
    width: Annotated[int | None, typer.Option(help="Pixels; default: the base's own.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels; default: the base's own.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures drawn at once.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fill OUT with regularization images: pictures of the class, each with its prompt as caption.

    Stopped, it goes on where it was.

    Examples:

      maquette regularize reg/ --base sd15.safetensors --for "photos/40_ohwx man"

      maquette regularize reg/ --prompt "photo of a man" --prompt "photo of a man, full-body" --count 200
    """
    from ..stages.regularize import RegularizeConfig, run

    values = given(
        out=out,
        base=base,
        vae=vae,
        prediction_type=prediction_type,
        photos=photos,
        prompt=prompt,
        count=count,
        subject=subject,
        repeats=repeats,
        negative_prompt=negative_prompt,
        seed=seed,
        steps=steps,
        cfg_scale=cfg_scale,
        sampler=sampler,
        width=width,
        height=height,
        batch_size=batch_size,
        device=device,
    )
    with Display() as display:
        result = run(RegularizeConfig.parse(values, "regularize"), display)
    if json_output:
        print_json(result)
        return
    print(f"{result.made} pictures drawn, {result.there} were there: {result.out} holds {result.there + result.made}.")
    print(f"Train with them: maquette train PHOTOS --reg {result.out}")
