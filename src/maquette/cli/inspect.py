"""maquette inspect: what is this file?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..config.weights import InspectConfig
from .common import Display, print_json
from .options import options_from
from .terminal import Screen

if TYPE_CHECKING:
    from ..stages.inspect import InspectResult


@options_from(InspectConfig, "path")
def command(
    values: dict[str, Any],
    metadata: Annotated[bool, typer.Option(help="Print the file's metadata in full.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What PATH is: family, parts, precision, size, hashes; of a LoRA also method, rank and trigger words.

    Nothing in the file is run, however it was made.

    Examples:

      maquette inspect downloaded.safetensors

      maquette inspect old-model.ckpt --json

      maquette inspect mine.safetensors --compare base.safetensors --picture difference.png
    """
    from ..stages.inspect import run

    with Display() as display:
        result = run(InspectConfig.parse(values, "inspect"), display)
    if json_output:
        print_json(result)
    else:
        show(result, metadata)


def show(result: InspectResult, metadata: bool) -> None:
    """Print the findings for a person."""
    screen = Screen()
    screen.line(result.sentence)
    if result.kind == "picture":
        for text in result.metadata.values():
            print(text)
        return
    screen.table(_facts(result))
    if result.family_tree:
        screen.line("made from:")
        for line in result.family_tree:
            screen.line(f"  {line}")
    if result.comparison:
        show_comparison(result.comparison, screen)
    for problem in result.problems:
        screen.line(f"problem: {problem}", style="yellow")
    if metadata:
        for key, value in sorted(result.metadata.items()):
            screen.line(f"{key} = {value}")
    elif result.metadata:
        screen.line(f"{len(result.metadata)} metadata entries (--metadata prints them)")


def show_comparison(comparison: dict[str, Any], screen: Screen) -> None:
    """A line for each block: norms, the difference against the first one's, and the cosine between the two."""
    screen.line()
    screen.line(f"against {comparison['other']}")
    rows = []
    for block in [*comparison["blocks"], comparison["whole"]]:
        cosine = "" if block["cosine"] is None else f"{block['cosine']:.4f}"
        norms = (f"{block['norm']:.4g}", f"{block['norm_of_other']:.4g}", f"{100 * block['relative']:.3g} %")
        rows.append((block["block"], str(block["tensors"]), *norms, cosine))
    screen.table(rows, ("block", "tensors", "norm", "other's norm", "difference", "cosine"))
    lists = {
        "only_here": "only here",
        "only_in_other": "only in the other",
        "not_compared": "of other kinds or sizes, not compared",
    }
    for key, shown in lists.items():
        if comparison[key]:
            screen.line(f"{len(comparison[key])} {shown}, for example {comparison[key][0]}")


def _facts(result: InspectResult) -> list[tuple[str, str]]:
    facts = [("size", f"{result.size_bytes / 1e6:,.1f} MB"), ("parameters", f"{result.parameters:,}")]
    facts.append(("precision", ", ".join(result.dtypes)))
    for part, counts in result.parts.items():
        if len(result.parts) > 1:
            facts.append((part, f"{counts['parameters']:,} in {counts['tensors']} tensors"))
    if result.prediction_type:
        facts.append(("predicts", result.prediction_type))
    if result.lora:
        lora = result.lora
        facts.append(("method", lora.method))
        for name, counts in (("rank", lora.ranks), ("alpha", lora.alphas)):
            shown = ", ".join(f"{value} ({n} modules)" for value, n in list(counts.items())[:4])
            facts += [(name, shown)] if shown else []
        facts.append(("modules", f"{lora.modules}, of which {lora.matched} are layers of the family"))
        facts.append(("names", lora.dialect))
        if lora.words:
            facts.append(("words", ", ".join(lora.words)))
        facts.append(("trigger words", ", ".join(lora.trigger_words) or "not known"))
    if result.embedding:
        facts.append(("vectors", f"{result.embedding['vectors']} of width {result.embedding['width']}"))
    return facts + [(name, value) for name, value in result.hashes.items() if value]
