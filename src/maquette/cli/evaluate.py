"""maquette evaluate: which checkpoint to keep, and at which weight."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .common import Display, given, print_json


def command(
    run: Annotated[Path, typer.Argument(help="Run folder, or any folder of LoRA files.", show_default=False)],
    photos: Annotated[Path | None, typer.Option(help="Photos trained on; of a run its own.")] = None,
    subject: Annotated[str | None, typer.Option(help='Rare word and class: "ohwx man"; of a run its own.')] = None,
    base: Annotated[str | None, typer.Option(help="Base model; of a run its own.")] = None,
    prefer: Annotated[str | None, typer.Option(help="likeness, balanced or flexible.")] = None,
    weight: Annotated[list[float] | None, typer.Option(help="Weight to try; may be given again.")] = None,
    fold_weight: Annotated[bool, typer.Option("--fold-weight", help="Fold the chosen weight in: 1 is right.")] = False,
    thorough: Annotated[bool, typer.Option("--thorough", help="Every checkpoint at every weight.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the panel.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where results go, if not a run folder.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:1.")] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Choose the checkpoint to keep and its weight, say why, and write report.html.

    The checkpoints are measured on the photos and on pictures they draw, by the base model itself.

    Examples:

      maquette evaluate runs/zkw-robot

      maquette evaluate runs/ohwx-man --prefer flexible --fold-weight

      maquette evaluate kohya/output --photos photos/ --subject "ohwx man" --base sd15.safetensors
    """
    from ..stages.evaluate import EvaluateConfig
    from ..stages.evaluate import run as evaluate

    values = given(
        run=run,
        photos=photos,
        subject=subject,
        base=base,
        prefer=prefer,
        weights=weight or None,
        fold_weight=fold_weight or None,
        thorough=thorough or None,
        seed=seed,
        out=out,
        device=device,
    )
    with Display() as display:
        result = evaluate(EvaluateConfig.parse(values, "evaluate"), display)
    if json_output:
        print_json(result)
        return
    for sentence in result.reasons:
        print(sentence)
    if result.hard_photos:
        print(f"Photos that stay hard, look at their captions: {', '.join(result.hard_photos)}")
    print(f"LoRA:   {result.file}")
    print(f"Report: {result.report}")
