"""maquette runs: which runs there are, how two differ, and what they need no more."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.runs import RunsConfig
from ..files import shown_bytes
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.runs import RunsResult


@options_from(RunsConfig, "runs")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """List runs with subject, base, method, verdict, size and state. Two that are named are compared: settings that
    differ, and their pictures side by side.

    Examples:

      maquette runs

      maquette runs runs/ohwx-man runs/ohwx-man-2

      maquette runs --clean
    """
    from ..stages.runs import run

    with Display() as display:
        result = run(RunsConfig.parse(values, "runs"), display)
        if result.freed and not result.removed and not json_output:
            show_freed(result)
            if _agreed():
                result = run(RunsConfig.parse(values | {"yes": True}, "runs"), display)
    if json_output:
        return print_json(result)
    show(result, values)


def _agreed() -> bool:
    """Ask, where someone is there to answer."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("Nothing was removed; --yes removes it.")
        return False
    return typer.confirm("Remove it?", default=False)


def show_freed(result: RunsResult) -> None:
    screen = Screen()
    rows = [(one.path, shown_bytes(one.bytes), one.what, one.lost) for one in result.freed]
    screen.table(rows, ("would go", "size", "what", "what is lost"))
    screen.line(f"{shown_bytes(result.freed_bytes)} in all.")


def show(result: RunsResult, values: dict[str, Any]) -> None:
    """Print the list, the comparison, or what was removed."""
    screen = Screen()
    if values.get("clean"):
        if result.removed:
            screen.line(f"{shown_bytes(result.freed_bytes)} removed, in {len(result.freed)} files and folders.")
        elif not result.freed:
            screen.line("There is nothing that finished runs do not need.")
        return
    rows = [
        (
            Path(one.run).name,
            one.subject,
            one.base,
            one.method,
            one.verdict,
            shown_bytes(one.size_bytes),
            one.problem or one.state,
        )
        for one in result.runs
    ]
    screen.table(rows, ("run", "subject", "base", "method", "verdict", "size", "state"))
    if not rows:
        screen.line("There are no runs here yet.")
    if len(result.runs) == 2 and len(values.get("runs", [])) == 2:
        screen.line()
        screen.table(result.differences, ("differs", *(Path(one.run).name for one in result.runs)))
        screen.line(f"Side by side: {result.picture}" if result.picture else "They drew no prompt in common.")
