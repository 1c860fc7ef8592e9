"""maquette check: look at a folder of photos before training on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.photos import CheckConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.check import CheckResult

_WIDEST = 300  # characters of a caption in the table
_SHOWN = 40  # photos in the table; --json has them all
_ONE_WINDOW = 75  # tokens that every program reads; captions of more have their number shown
_SAME_KIND = 20  # problems of one kind


@options_from(CheckConfig, "photos")
def command(
    values: dict[str, Any],
    html: Annotated[Path | None, typer.Option(help="Also write a page with every photo and its crop.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What is wrong with PHOTOS, what will be learned from them, and what it will cost. Changes nothing.

    Examples:

      maquette check photos/ --subject "ohwx man"

      maquette check photos/ --subject "ohwx man" --base sd15.safetensors --repeats 40 --html check.html
    """
    from ..stages.check import run

    with Display() as display:
        result = run(CheckConfig.parse(values, "check"), display)
    if html is not None:
        from ..stages.check_page import write_page

        write_page(result, html)
        print(f"page written: {html}", file=sys.stderr)
    if json_output:
        print_json(result)
    else:
        show(result)
    if result.blocking:
        raise typer.Exit(1)


def show(result: CheckResult) -> None:
    """Print the findings for a person."""
    from ..data import findings

    screen = Screen()
    screen.table(_photo_rows(result), ("photo", "size", "trained at", "cut off", "repeats", "caption", "notes"))
    if result.problems:
        screen.line()
    for problem in findings.shortened(result.problems, _SAME_KIND, "--json"):
        screen.line(findings.sentence(problem), style="red" if problem.blocking else "yellow")
    screen.line()
    for line in [*result.observations, *result.golden_rule.sentences(), "", *result.figures()]:
        screen.line(line, style="bold yellow" if line == findings.TOY else None)


def _photo_rows(result: CheckResult) -> list[list[str]]:
    rows = []
    instance = [photo for photo in result.photos if photo["role"] == "instance"]
    for photo in instance[:_SHOWN]:
        size, bucket = ("{} x {}".format(*photo[key]) for key in ("size", "bucket"))
        notes = [f"{photo['tokens']} tokens"] if photo["tokens"] > _ONE_WINDOW else []
        notes += photo["notes"]
        cells = [photo["name"], size, bucket, f"{photo['cut_off']:.0%}", str(photo["repeats"])]
        rows.append([*cells, _cut(photo["caption"]) or "(none)", "; ".join(notes)])
    if len(instance) > _SHOWN:
        rows.append([f"… and {len(instance) - _SHOWN} more"])
    return rows


def _cut(text: str) -> str:
    return text if len(text) <= _WIDEST else text[:_WIDEST] + " …"
