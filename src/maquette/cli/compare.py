"""maquette compare: methods, bases or settings side by side."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.compare import CompareConfig
from .common import Display, print_json
from .interrupt import interruptible
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..fleet.comparing import CompareResult


@options_from(CompareConfig, "photos", names={"settings": "set"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train several ways on PHOTOS and measure all on the same panel: a table, pictures and the answer in words.

    After a stop or a kill the same command goes on.

    Examples:

      maquette compare photos/ --subject "ohwx man" --methods lora,dreambooth,textual-inversion

      maquette compare photos/ --subject "ohwx man" --bases sd15.safetensors --bases anime.safetensors

      maquette compare photos/ --subject "ohwx man" --set rank=4,16,64 --set text_encoder=true
    """
    from ..fleet.comparing import run

    cancel = threading.Event()
    with interruptible(cancel, "Stopping, and saving …"), Display() as display:
        result = run(CompareConfig.parse(values, "compare"), display, cancel)
    if json_output:
        print_json(result)
    else:
        show(result)


def show(result: CompareResult) -> None:
    """Print the table and the answers."""
    from ..report.compare_page import table_heads, table_row

    screen = Screen()
    rows = [
        (one["name"] if one["used"] == one["base"] else f"{one['name']} on {one['used']}", *table_row(one))
        for one in result.to_json()["trainings"]
    ]
    screen.table(rows, ("", *table_heads()))
    for sentence in result.answers:
        screen.line(sentence)
    screen.line(f"Pictures: {result.picture}")
    screen.line(f"Report:   {result.report}")
