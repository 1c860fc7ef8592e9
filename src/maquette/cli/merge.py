"""maquette merge: LoRAs into a checkpoint, or several LoRAs into one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.weights import MergeConfig
from .common import Display, print_json
from .options import options_from


@options_from(MergeConfig, "base", names={"loras": "lora"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Put LoRAs of any kind into BASE for good, tensor by tensor: the same pictures as with <lora:…> in the prompt.

    Examples:

      maquette merge sd15.safetensors --lora me.safetensors:0.8 --out me-sd15.safetensors

      maquette merge sd15.ckpt --lora me.safetensors:0.8,te=0.5 --lora style.safetensors:0.6,lbw=OUTALL --out x.ckpt

      maquette merge --to lora --lora me.safetensors:0.8 --lora style.safetensors:0.6 --rank 32 --out both.safetensors
    """
    from ..stages.merge import run

    with Display() as display:
        result = run(MergeConfig.parse(values, "merge"), display)
    if json_output:
        print_json(result)
