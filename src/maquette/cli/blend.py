"""maquette blend: several checkpoints as one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.blend import BlendConfig
from .common import Display, print_json
from .options import options_from


@options_from(BlendConfig, "models")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """One checkpoint of several, tensor by tensor, without loading any of them whole.

    Examples:

      maquette blend me-in-sd15.safetensors me-in-realistic.safetensors --alpha 0.5 --out me.safetensors

      maquette blend realistic.safetensors me.safetensors sd15.safetensors --mode add-difference --out me-realistic.ckpt

      maquette blend sd15-inpainting.ckpt sd15.ckpt --make-inpainting me.safetensors --out me-inpainting.safetensors

      maquette blend --recipe mine.toml --out mine.safetensors
    """
    from ..stages.blend import run

    with Display() as display:
        result = run(BlendConfig.parse(values, "blend"), display)
    if json_output:
        print_json(result)
