"""maquette caption: write and edit the text files beside photos."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.photos import CaptionConfig
from .common import Display, print_json
from .options import options_from

if TYPE_CHECKING:
    from ..stages.caption import CaptionResult

_WIDEST = 300  # characters of a caption printed
_SHOWN = 20  # captions printed; --json has them all


@options_from(CaptionConfig, "photos")
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Write a caption beside each photo of PHOTOS that has none, and edit many at once.

    Captions that exist are kept unless edited or --overwrite is given; what is replaced is kept as a .bak file.

    Examples:

      maquette caption photos/ --subject "ohwx man"

      maquette caption photos/ --captioner blip --subject "ohwx man"

      maquette caption photos/ --replace "shirt=blue shirt" --add outdoors --dry-run

      maquette caption photos/ --shuffle 3 --keep-tokens 1
    """
    from ..stages.caption import run

    with Display() as display:
        result = run(CaptionConfig.parse(values, "caption"), display)
    if json_output:
        print_json(result)
        return
    for line in _lines(result):
        print(line)


def _lines(result: CaptionResult) -> list[str]:
    """What was done, for a person."""
    shown = result.captions if any(caption.shuffled for caption in result.captions) else result.written
    lines = []
    for caption in shown[:_SHOWN]:
        first, *further = (_cut(line) for line in caption.after.split("\n"))
        lines += [f"{caption.file}: {first}", *(f"    {line}" for line in [*further, *caption.shuffled])]
    if len(shown) > _SHOWN:
        lines.append(f"… and {len(shown) - _SHOWN} more")
    lines += [("left out: " if problem.left_out else "") + problem.message for problem in result.problems]
    verb = "would be written" if result.dry_run else "written"
    kept = len(result.captions) - len(result.written)
    backups = sum(caption.backup is not None for caption in result.captions)
    saved = f"; {backups} old ones kept as .bak" if backups else ""
    return [*lines, f"{len(result.written)} captions {verb}, {kept} kept as they were{saved}."]


def _cut(line: str) -> str:
    return line if len(line) <= _WIDEST else line[:_WIDEST] + " …"
