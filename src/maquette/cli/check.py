"""maquette check: look at a folder of photos before training on it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..data.dataset import Problem
    from ..stages.check import CheckResult

_SHOWN = 40  # photos in the table; --json has them all


def command(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.", show_default=False)],
    subject: Annotated[str | None, typer.Option(help="Rare word and class, for photos without a caption.")] = None,
    base: Annotated[
        str, typer.Option(help="Base model: pocket, a .safetensors file or a diffusers folder.")
    ] = "pocket",
    reg: Annotated[Path | None, typer.Option(help="Folder of regularization pictures.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="How often each photo counts in an epoch.")] = None,
    resolution: Annotated[int | None, typer.Option(min=16, help="Pixels of a side; default: the base's own.")] = None,
    buckets: Annotated[bool | None, typer.Option(help="Keep each photo's shape, or cut squares.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Photos per training step.")] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA, for the file size.")] = 16,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What is wrong with PHOTOS, what will be learned from them, and what it will cost. Changes nothing.

    Examples:

      maquette check photos/ --subject "ohwx man"

      maquette check photos/ --subject "ohwx man" --base sd15.safetensors --repeats 40 --json
    """
    from ..stages.check import CheckConfig, run

    config = CheckConfig(
        photos=photos,
        subject=subject,
        base=base,
        reg=reg,
        repeats=repeats,
        resolution=resolution,
        buckets=buckets,
        batch_size=batch_size,
        rank=rank,
    )
    result = run(config)
    if json_output:
        print(json.dumps(result.to_json(), indent=2, ensure_ascii=False))
    else:
        show(result)
    if result.blocking:
        raise typer.Exit(1)


def show(result: CheckResult) -> None:
    """Print the findings for a person."""
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    console.print(_photo_table(result))
    for problem in result.problems:
        console.print(_line(problem), markup=False, style="red" if problem.blocking else "yellow")
    console.print()
    for line in summary(result):
        console.print(line, markup=False)


def _photo_table(result: CheckResult) -> Any:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("photo", "size", "trained at", "cut off", "repeats", "caption", "notes"):
        table.add_column(heading, overflow="fold")
    for photo in result.photos[:_SHOWN]:
        size, bucket = ("{} x {}".format(*photo[key]) for key in ("size", "bucket"))
        notes = [*photo["notes"]]
        if photo["enlarged"] > 1:
            notes.append(f"enlarged {photo['enlarged']:.2f} times")
        cells = [photo["name"], size, bucket, f"{photo['cut_off']:.0%}", str(photo["repeats"])]
        table.add_row(*(escape(cell) for cell in [*cells, photo["caption"] or "(none)", "; ".join(notes)]))
    if len(result.photos) > _SHOWN:
        table.add_row(f"… and {len(result.photos) - _SHOWN} more")
    return table


def _line(problem: Problem) -> str:
    return ("left out: " if problem.left_out else "") + problem.message


def summary(result: CheckResult) -> list[str]:
    """The figures, one sentence a line."""
    lines = [
        f"{result.images} photos x repeats = {result.samples} samples per epoch; batch size {result.batch_size}: "
        f"{result.steps_per_epoch} steps per epoch.",
        f"Trained at {result.resolution} x {result.resolution} pixels or the same area; "
        f"LoRA file: about {_megabytes(result.file_bytes)}.",
    ]
    if result.class_images:
        lines.append(f"{result.class_images} regularization pictures x repeats = {result.class_samples}.")
    if result.left_out:
        lines.append(f"{len(result.left_out)} files are left out, named above.")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size < 1e9 else f"{size / 1e9:.2f} GB"
