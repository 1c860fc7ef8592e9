"""maquette generate: pictures from a prompt, with LoRAs."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from ..sampling.draw_settings import GenerateConfig
from .options import options_from


@options_from(GenerateConfig, "prompt", names={"controls": "control", "styles": "style"})
def command(
    values: dict[str, Any],
    from_picture: Annotated[
        Path | None, typer.Option("--from", help="Repeat this picture: its text gives what is not given here.")
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw pictures. Each carries the text that makes it again, as A1111 writes it.

    The prompt knows (more), [less], (exactly:1.3), BREAK, AND, [from:to:when], [a|b], # comments and <lora:NAME:0.8>.

    Examples:

      maquette generate "a photo of a cat on a red background" --seed 1 --batch-size 4

      maquette generate "a photo of zkw robot on a red background <lora:zkw-robot:0.8>" --lora-dir runs/zkw-robot

      maquette generate "a cat, noto style" --init-image photo.png --denoising-strength 0.6

      maquette generate "a hat" --init-image photo.png --mask mask.png --only-masked

      maquette generate "a cat" --hires-scale 2 --denoising-strength 0.5

      maquette generate "a photo of a cat on a red background" --control pocket-canny,image=photo.png,preprocessor=canny

      maquette generate "a house" --base sd15.safetensors --control canny.safetensors,image=house.png,preprocessor=canny

      maquette generate --from out/00001-1.png --seed 2
    """
    from ..stages.generate import run
    from ..stages.repeat import repeated
    from .common import Display, print_json
    from .interrupt import interruptible

    cancel = threading.Event()
    with interruptible(cancel, "Stopping after this picture …"), Display() as display:
        if from_picture is not None:
            values = repeated(from_picture, values, display)
        if "prompt" not in values and "prompts_file" not in values:
            raise typer.BadParameter("give a prompt, --prompts-file or --from")
        result = run(GenerateConfig.parse(values, "generate"), display, cancel=cancel)
    if json_output:
        print_json(result)
