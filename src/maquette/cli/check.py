"""maquette check: look at a folder of photos before training on it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import Display, given, print_json
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.check import CheckResult

_WIDEST = 300  # characters of a caption in the table
_SHOWN = 40  # photos in the table; --json has them all
_ONE_WINDOW = 75  # tokens that every program reads; captions of more have their number shown
_SAME_KIND = 20  # problems of one kind


def command(
    photos: Annotated[Path, typer.Argument(help="Folder of photos.", show_default=False)],
    subject: Annotated[str | None, typer.Option(help="Rare word and class, for photos without a caption.")] = None,
    base: Annotated[
        str, typer.Option(help="Base model: pocket, a .safetensors file or a diffusers folder.")
    ] = "pocket",
    vae: Annotated[str | None, typer.Option(help="VAE file or folder instead of the base's own.")] = None,
    prediction_type: Annotated[
        str | None,
        typer.Option(help="What the base predicts, if its file does not say: epsilon, v_prediction, flow."),
    ] = None,
    reg: Annotated[Path | None, typer.Option(help="Folder of regularization images.")] = None,
    repeats: Annotated[int | None, typer.Option(min=1, help="How often each photo counts in an epoch.")] = None,
    resolution: Annotated[int | None, typer.Option(min=16, help="Pixels of a side; default: the base's own.")] = None,
    buckets: Annotated[bool | None, typer.Option(help="Keep each photo's shape, or cut squares.")] = None,
    no_upscale: Annotated[bool, typer.Option("--no-upscale", help="With buckets: never enlarge a photo.")] = False,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Photos per training step.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; default: what train would take.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of steps: passes over all photos.")] = None,
    alpha_mask: Annotated[bool, typer.Option("--alpha-mask", help="Transparency will be the mask.")] = False,
    max_token_length: Annotated[
        int | None, typer.Option(help="Tokens of a caption that are learned: 75, 150 or 225.", show_default="225")
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA, for the file size.")] = 16,
    out: Annotated[Path, typer.Option(help="Where runs will be written, to see whether there is room.")] = Path("runs"),
    html: Annotated[Path | None, typer.Option(help="Also write a page with every photo and its crop.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What is wrong with PHOTOS, what will be learned from them, and what it will cost. Changes nothing.

    Examples:

      maquette check photos/ --subject "ohwx man"

      maquette check photos/ --subject "ohwx man" --base sd15.safetensors --repeats 40 --html check.html
    """
    from ..stages.check import CheckConfig, run

    values = given(
        photos=photos,
        subject=subject,
        base=base,
        vae=vae,
        prediction_type=prediction_type,
        reg=reg,
        repeats=repeats,
        resolution=resolution,
        buckets=buckets,
        no_upscale=no_upscale,
        batch_size=batch_size,
        steps=steps,
        epochs=epochs,
        alpha_mask=alpha_mask,
        max_token_length=max_token_length,
        rank=rank,
        out=out,
    )
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
