"""What the truth's noise allows, and what other forms of the rule reach: figures, and the text of docs/overtraining.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.choice import fitting, floor, others
from benchmarks.choice.cases import Case
from benchmarks.choice.results import summary
from maquette.evaluation.rule import RULE

BEGIN, END = "<!-- bounds of benchmarks/checkpoint_choice.py -->", "<!-- end of bounds -->"


def bounds(cases: Sequence[Case]) -> dict[str, Any]:
    """Everything as JSON."""
    choose = fitting.chooser(RULE)
    chosen = {case.name: choose(case) for case in cases}
    return {
        "runs": len(cases),
        "rule": summary(cases, chosen),
        "sureness": floor.sureness(cases, chosen),
        "floor": floor.floor(cases),
        "others": others.compared(cases),
    }


def page(told: Mapping[str, Any]) -> str:
    """The text between the marks."""
    sure = {name: f"{told['rule'][name]:.1%} ({low:.1%} to {high:.1%})" for name, (low, high) in told["sureness"].items()}
    return "\n\n".join(
        [
            f"From {told['runs']} runs. The shipped rule's regret: median {sure['median']}, 90th percentile "
            f"{sure['p90']}; in brackets the 95 % intervals, by a bootstrap over subjects.",
            floor_table(told["floor"]),
            enough(told["floor"]),
            others_table(told["others"]),
        ]
    )


def floor_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        "| pictures of a cell | a choice that is never wrong is charged: median | 90th percentile "
        "| who knows one draw, by another: median | 90th percentile | the same, by the truth: median | 90th percentile |",
        "|---|---|---|---|---|---|---|",
    ]
    for pictures, values in found.items():
        cells = [f"{values[n][q]:.1%}" for n in ("never_wrong", "oracle", "truly") for q in ("median", "p90")]
        lines.append(f"| {pictures} | {' | '.join(cells)} |")
    return "\n".join(lines)


def enough(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """How many pictures of a cell the bars need so that noise alone takes less than half of each."""
    parts = []
    for name, words in (("median", "the median"), ("p90", "the 90th percentile")):
        bar = floor.BARS[name]
        least = next((n for n, values in found.items() if values["never_wrong"][name] < bar / 2), None)
        parts.append(f"{least or 'more than ' + list(found)[-1]} for {words} ({bar:.0%})")
    return f"Pictures of a cell at which noise alone takes less than half of a bar: {', '.join(parts)}."


def others_table(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "| form, told of each subject by the others | median regret | 90th percentile | mean | worst "
        "| mean difference from the first (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for name, v in found.items():
        difference = f"{v['difference']:+.1%} ({v['low']:+.1%} to {v['high']:+.1%})" if v["difference"] else "–"
        lines.append(
            f"| {name} | {v['median']:.1%} | {v['p90']:.1%} | {v['mean']:.1%} | {v['worst']:.1%} | {difference} |"
        )
    return "\n".join(lines)
