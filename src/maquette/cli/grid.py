"""maquette grid: pictures over two or three axes."""

from __future__ import annotations

import threading
from typing import Annotated, Any

import typer

from ..sampling.grid.settings import GridConfig
from .options import options_from

_WITHOUT = ("batch_size", "batch_count", "preview_every")


@options_from(GridConfig, "prompt", names={"controls": "control", "styles": "style"}, without=_WITHOUT)
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Draw an X/Y/Z grid: one labelled picture, a page to look at each whole, and the single pictures.

    An axis is NAME=VALUES. Names: checkpoint, lora, weight, search (words in the prompts, the first are looked for),
    prompt, seed, sampler, schedule, steps, cfg, clip skip, size, denoising, base, control weight, and any other option.
    Values: 1, 2 or 1-5 or 1-5 (+2) or 0-1 [5]; those with a comma in quotation marks. The same command goes on with a
    grid that was ended.

    Examples:

      maquette grid "zkw robot <lora:zkw-robot:1>" --lora-dir runs/zkw-robot --x checkpoint=all --y "weight=0.4-1 [4]"

      maquette grid "a photo of a cat" --x "search=cat, dog, horse" --y seed=1-3 --z "sampler=DDIM, Euler a"

      maquette grid "a house" --x "base=sd15.safetensors, mine.safetensors" --y "cfg=4-10 (+3)"
    """
    from ..stages.grid import run
    from .common import Display, print_json
    from .interrupt import interruptible

    cancel = threading.Event()
    with interruptible(cancel, "Stopping after this picture …"), Display() as display:
        result = run(GridConfig.parse(values, "grid"), display, cancel)
    if json_output:
        return print_json(result)
    if result.status == "stopped":
        print(f"Stopped: {len(result.cells)} pictures are in {result.out}; the same command goes on.")
