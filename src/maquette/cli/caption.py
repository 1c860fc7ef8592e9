"""maquette caption: write and edit the text files beside photos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Display, given, print_json

if TYPE_CHECKING:
    from ..stages.caption import CaptionResult

_WIDEST = 300  # characters of a caption printed
_SHOWN = 20  # captions printed; --json has them all


def command(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.", show_default=False)],
    subject: Annotated[str | None, typer.Option(help='Rare word and class: "ohwx man".')] = None,
    captioner: Annotated[
        str, typer.Option(help="template, blip, wd14, a model folder, or hf:owner/name.")
    ] = "template",
    model: Annotated[Path | None, typer.Option(help="Folder of the captioner's weights.")] = None,
    template: Annotated[str | None, typer.Option(help='What "template" writes: "a photo of {subject}".')] = None,
    overwrite: Annotated[bool, typer.Option(help="Also replace existing captions; the old are kept as .bak.")] = False,
    replace: Annotated[list[str] | None, typer.Option(help="Replace words: old=new; may be given again.")] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Remove this tag; may be given again.")] = None,
    add: Annotated[list[str] | None, typer.Option(help="Add this tag where it lacks; may be given again.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Text before every caption.")] = None,
    suffix: Annotated[str | None, typer.Option(help="Text behind every caption.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be written.")] = False,
    shuffle: Annotated[
        int | None, typer.Option(min=1, help="Only show so many orders of the tags, as training would shuffle them.")
    ] = None,
    keep_tokens: Annotated[int | None, typer.Option(min=1, help="With --shuffle: so many tags stay in front.")] = None,
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
    from ..stages.caption import CaptionConfig, run

    values = given(
        photos=photos,
        subject=subject,
        captioner=captioner,
        model=model,
        template=template,
        overwrite=overwrite,
        replace=replace,
        remove=remove,
        add=add,
        prefix=prefix,
        suffix=suffix,
        dry_run=dry_run,
        shuffle=shuffle,
        keep_tokens=keep_tokens,
    )
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
