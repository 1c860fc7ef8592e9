"""maquette evaluate: which checkpoint to keep, and at which weight."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..config.runs import EvaluateConfig
from .common import KINDS, Display, print_json
from .options import options_from


@options_from(EvaluateConfig, "run", names={"weights": "weight"})
def command(
    values: dict[str, Any],
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Choose the checkpoint to keep and its weight, say why, and write report.html.

    The checkpoints are measured on the photos and on pictures they draw, by the base model itself.

    Examples:

      maquette evaluate runs/zkw-robot

      maquette evaluate runs/ohwx-man --prefer flexible --fold-weight

      maquette evaluate kohya/output --photos photos/ --subject "ohwx man" --base sd15.safetensors
    """
    from ..stages.evaluate import run as evaluate

    with Display() as display:
        result = evaluate(EvaluateConfig.parse(values, "evaluate"), display)
    if json_output:
        print_json(result)
        return
    for sentence in result.reasons:
        print(sentence)
    if result.hard_photos:
        print(f"Photos that stay hard, look at their captions: {', '.join(result.hard_photos)}")
    print(f"{KINDS[result.product]:7} {result.file}")
    print(f"Report: {result.report}")
