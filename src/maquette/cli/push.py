"""maquette push: a run's model card, and its upload to the Hugging Face hub."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.runs import PushConfig
from ..files import shown_bytes
from .common import Display, print_json
from .options import options_from


@options_from(PushConfig, "run", "to")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a model card with pictures for RUN, and with --upload send it and the chosen file to the hub.

    Photos, captions and other checkpoints are never sent.

    Examples:

      maquette push runs/ohwx-man hf:me/ohwx-man

      maquette push runs/ohwx-man hf:me/ohwx-man --upload
    """
    from ..stages.push import run

    with Display() as display:
        result = run(PushConfig.parse(values, "push"), display)
    if json_output:
        return print_json(result)
    print(f"Card: {result.card}")
    if result.url:
        print(f"Uploaded {len(result.files)} files, {shown_bytes(result.bytes)}: {result.url}")
    else:
        print(f"Nothing was uploaded. --upload sends {shown_bytes(result.bytes)}: {', '.join(result.files)}")
