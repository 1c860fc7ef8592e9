"""maquette sweep: many settings on the same photos, ranked."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.sweep import SweepConfig
from .common import Display, print_json
from .interrupt import interruptible
from .options import options_from
from .start import INTERRUPTED
from .terminal import Screen

if TYPE_CHECKING:
    from ..fleet.sweeping import SweepResult


@options_from(SweepConfig, "photos", names={"settings": "set"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train every combination of settings on PHOTOS, or some drawn at random, and rank them by the evaluation.

    They are jobs of `maquette fleet`: after a stop the same command goes on, and more values add to what is there.

    Examples:

      maquette sweep photos/ --subject "ohwx man" --set rank=4,16 --set learning_rate=5e-5,1e-4

      maquette sweep photos/ --subject "ohwx man" --set learning_rate=1e-5..1e-3 --set rank=4..64 --samples 20
    """
    from ..fleet.sweeping import sweep

    cancel = threading.Event()
    with interruptible(cancel, "Stopping the workers after their step …"), Display() as display:
        result = sweep(SweepConfig.parse(values, "sweep", names={"settings": "set"}), display, cancel)
    print_json(result) if json_output else show(result)
    if result.status == "stopped":
        raise typer.Exit(INTERRUPTED)
    if result.problems:
        raise typer.Exit(1)


def show(result: SweepResult) -> None:
    """Print the ranking."""
    screen = Screen()
    keys = list(dict.fromkeys(key for one in result.tried for key in one.settings))
    rows = [
        (
            place, *(one.settings.get(key, "") for key in keys), f"{one.score:.3f}" + ("" if one.accepted else " ✕"),
            f"{one.step} × {one.weight:g}", f"{one.seconds:.0f} s",
        )
        for place, one in enumerate(result.tried, start=1)
    ]  # fmt: skip
    if result.tried:
        screen.table(rows, ("", *keys, "score", "step × weight", "time"))
        screen.line(f"The best: {result.tried[0].file}")
    for problem in result.problems:
        screen.line(problem, style="yellow", before="warning:")
