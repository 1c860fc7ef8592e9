"""maquette regularize: draw regularization images of the class."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.photos import RegularizeConfig
from .common import Display, print_json
from .options import options_from


@options_from(RegularizeConfig, "out", names={"photos": "for"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Fill OUT with regularization images: pictures of the class, each with its prompt as caption.

    Stopped, it goes on where it was.

    Examples:

      maquette regularize reg/ --base sd15.safetensors --for "photos/40_ohwx man"

      maquette regularize reg/ --prompt "photo of a man" --prompt "photo of a man, full-body" --count 200
    """
    from ..stages.regularize import run

    with Display() as display:
        result = run(RegularizeConfig.parse(values, "regularize"), display)
    if json_output:
        print_json(result)
        return
    print(f"{result.made} pictures drawn, {result.there} were there: {result.out} holds {result.there + result.made}.")
    print(f"Train with them: maquette train PHOTOS --reg {result.out}")
