"""What the truth's noise allows, and what other forms of the rule reach: figures, and their text in the docs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.choice import fitting, floor, others, searching
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
        "half": floor.beside_a_half(cases, chosen),
        "others": others.compared(cases),
        "missing": others.missing(cases),
        "searching": searching.few_cells(cases),
    }


def page(told: Mapping[str, Any]) -> str:
    """The text between the marks."""
    sure = {
        name: f"{told['rule'][name]:.1%} ({low:.1%} to {high:.1%})" for name, (low, high) in told["sureness"].items()
    }
    return "\n\n".join(
        [
            f"From {told['runs']} runs. The shipped rule's regret: median {sure['median']}, 90th percentile "
            f"{sure['p90']}; in brackets the 95 % intervals, by a bootstrap over subjects.",
            floor_table(told["floor"]),
            enough(told["floor"]),
            half_line(told["half"]),
            others_table("form, told of each subject by the others", told["others"]),
            others_table("measures (powers of any sign) and", told["missing"]),
            f"Four checkpoints ({', '.join(map(str, searching.STEPS))}), few of their cells measured, LoRA and LoKr:",
            searching.table(told["searching"]),
        ]
    )


def floor_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    lines = [
        "| pictures of a cell | a choice that is never wrong is charged: median | 90th percentile "
        "| who knows so many pictures, by others: median | 90th percentile "
        "| the same, by the truth: median | 90th percentile |",
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


def half_line(half: Mapping[str, Any]) -> str:
    """The rule beside somebody who sees half of a draw."""
    both = {name: f"{half[name]['median']:.1%} and {half[name]['p90']:.1%}" for name in ("rule", "oracle")}
    more = [f"{mean:+.1%} ({low:+.1%} to {high:+.1%})" for mean, low, high in half["more"].values()]
    ratio, low, high = half["worth"]
    return (
        f"Without any model of the noise: somebody who sees half of the pictures of every cell ({floor.PICTURES // 2}) "
        f"has, by the other half, a median regret and 90th percentile of {both['oracle']}, the rule, which sees "
        f"none, of {both['rule']}: {more[0]} and {more[1]}. What the rule chooses is worth {ratio:.3f} ({low:.2f} to "
        f"{high:.2f}) of what that oracle chooses."
    )


def others_table(head: str, found: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        f"| {head} | median regret | 90th percentile | mean | worst | mean difference from the first (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for name, v in found.items():
        difference = f"{v['difference']:+.1%} ({v['low']:+.1%} to {v['high']:+.1%})" if v["difference"] else "–"
        lines.append(
            f"| {name} | {v['median']:.1%} | {v['p90']:.1%} | {v['mean']:.1%} | {v['worst']:.1%} | {difference} |"
        )
    return "\n".join(lines)
