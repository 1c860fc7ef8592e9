"""maquette convert: a model or an adapter in another layout."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.weights import ConvertConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen


@options_from(ConvertConfig, "source")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write SOURCE in another layout with the same numbers and, for single files, the names it came with.

    Examples:

      maquette convert old.ckpt --to single-file --out new.safetensors --dtype fp16

      maquette convert model.safetensors --to diffusers-dir --out model/

      maquette convert person.safetensors --to diffusers --out person-diffusers.safetensors

      maquette convert loha.safetensors --to diffusers --lossy --rank 16 --out person-diffusers.safetensors
    """
    from ..stages.convert import run

    with Display() as display:
        result = run(ConvertConfig.parse(values, "convert"), display)
    if json_output:
        print_json(result)
    elif result.modules:
        Screen().line(f"{result.written}/{result.modules} modules, {len(result.dropped)} dropped")
