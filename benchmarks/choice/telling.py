"""Tables and a plot of the results, as docs/measurements/checkpoint_choice.md has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.cases import Case
from benchmarks.choice.utility import regret

COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#bf8700", "#1a7f37", "#57606a")
BEGIN, END = "<!-- figures of benchmarks/checkpoint_choice.py -->", "<!-- end of figures -->"


def put_between_marks(page: str, text: str, begin: str = BEGIN, end: str = END) -> str:
    """The page with the text between its marks. Raises SystemExit where it has none."""
    if begin not in page or end not in page:
        raise SystemExit(f"The page lacks the marks {begin} and {end}.")
    before, rest = page.split(begin, 1)
    return f"{before}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def tables(told: Mapping[str, Any]) -> str:
    """Everything in Markdown. told: what `results.results` returns."""
    done, planned = told["runs"], len(list(plan.settings(plan.SUBJECTS)))
    runs, subjects = counted(done, "run"), counted(told["subjects"], "subject")
    rest = f"; {planned - done} of the {planned} that are planned are still to be trained, judged or measured"
    parts = [
        f"**These figures rest on {runs} of {subjects}{rest if done < planned else ''}.**",
        levels_line(told["levels"]),
        noise_line(told["noise"]),
    ]
    if "fitted" not in told:
        parts.append("These are too few to fit the rule: what follows is the rule as shipped, unfitted.")
    else:
        parts += [
            f"Fitted on {told['fitted_on']} runs (every second subject), reported on the other {told['reported_on']}:",
            regret_table(told["fitted"]),
            rule_line(told["rule"]),
            "Without one of its measures, the fitted rule's median regret (90th percentile) becomes: "
            + listed({name: pair(found) for name, found in told["ablation"].items()}),
        ]
    parts += [
        "The rule as shipped on all of these runs, and its rivals (the fixed number of steps is the best for these "
        "very runs):",
        regret_table(told["provisional"]),
        "One measure alone, without limits: "
        + listed({name: pair(found) for name, found in told["single_measures"].items() if found}),
        "Spearman correlation with the true worth, over a run's steps at weight 1 (median of the runs): "
        + listed({name: f"{value:+.2f}" for name, value in told["spearman"].items()}),
        "Regret of the weight alone, at the truly best step: "
        + listed({name: f"{value:.1%}" for name, value in told["weights"].items()}),
        level_table(told["by_level"]),
    ]
    return "\n\n".join(part for part in parts if part)


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def levels_line(levels: Mapping[str, Mapping[str, int]]) -> str:
    told = {f: ", ".join(f"{level} {n}" for level, n in sorted(found.items())) for f, found in levels.items()}
    told["rate"] = ", ".join(f"{('lower', 'higher')[int(level)]} {n}" for level, n in sorted(levels["rate"].items()))
    told["prior"] = ", ".join(
        f"{'with' if level == 'True' else 'without'} {n}" for level, n in sorted(levels["prior"].items())
    )
    return (
        f"Runs by method: {told['method']}; learning rate: {told['rate']}; prior preservation: {told['prior']}; "
        f"photos: {told['data']}."
    )


def noise_line(noise: Mapping[str, float]) -> str:
    return (
        "The truth's own noise: one half of a cell's pictures ranks a run's cells as the other half does with Spearman "
        f"{noise['spearman_of_halves']:.2f} (median of the runs), and the cell that is best by one half has, by the "
        f"other, a regret of {noise['regret_of_one_half_by_the_other']:.1%} (median)."
    )


def regret_table(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "| way to choose | median regret | 90th percentile | worst | by the probe: median | 90th percentile "
        "| best cell found by other pictures: median | 90th percentile |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, values in found.items():
        shown = ("median", "p90", "worst", "second_median", "second_p90", "crossed_median", "crossed_p90")
        lines.append(f"| {name} | {' | '.join(f'{values[column]:.1%}' for column in shown)} |")
    return "\n".join(lines)


def rule_line(rule: Mapping[str, Any]) -> str:
    terms = {
        name: f"power {term['power']:g}" + (f", scale {term['scale']:g}" if term["scale"] is not None else "")
        for name, term in rule["terms"].items()
    }
    least = {name: f"at least {value:g}" for name, value in rule["least"].items()}
    most = {name: f"at most {value:g}" for name, value in rule["most"].items()}
    return f"The fitted rule: terms {listed(terms)}; limits {listed({**least, **most}) or 'none'}."


def level_table(found: Mapping[str, Mapping[str, Any]]) -> str:
    lines = [
        "| | runs | median regret: rule as shipped | last step | truly best step | weight |",
        "|---|---|---|---|---|---|",
    ]
    for name, values in found.items():
        factor, level = name.split(" ", 1)
        shown = {"rate 0": "lower rate", "rate 1": "higher rate", "prior False": "no prior preservation"}.get(
            name, "prior preservation" if factor == "prior" else level
        )
        lines.append(
            f"| {shown} | {values['runs']} | {values['rule']:.1%} | {values['last']:.1%} "
            f"| {values['best_step']:g} | {values['best_weight']:g} |"
        )
    return "\n".join(lines)


def pair(found: Mapping[str, float]) -> str:
    return f"{found['median']:.1%} ({found['p90']:.1%})"


def listed(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def worth_map(cases: Sequence[Case]) -> str:
    """Mean worth, each run's best being 1, by step and weight: a table in Markdown."""
    lines = [f"| step | {' | '.join(f'{w:g}' for w in plan.WEIGHTS)} |", "|---" * (1 + len(plan.WEIGHTS)) + "|"]
    for step in plan.CHECKPOINTS:
        cells = []
        for weight in plan.WEIGHTS:
            values = [1 - regret(c.worths, (step, weight)) for c in cases if (step, weight) in c.worths]
            cells.append(f"{np.mean(values):.2f}" if values else "–")
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return "\n".join(lines)


def regret_plot(curves: Mapping[str, Sequence[float]], width: int = 640, height: int = 320) -> str:
    """An SVG picture: share of the runs (up) whose regret is at most so much (to the right), a line for each way."""
    left, bottom, top, most = 46, 36, 12, 0.6
    right = width - 200

    def x(value: float) -> float:
        return left + (right - left) * min(value, most) / most

    def y(share: float) -> float:
        return height - bottom - (height - bottom - top) * share

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" role="img"><title>Share of runs by regret</title>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for tick in (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        parts.append(f'<path d="M{x(tick):.1f} {y(0)}V{y(1)}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{height - 20}" text-anchor="middle">{tick:.0%}</text>')
    for share in (0, 0.5, 0.9, 1):
        parts.append(f'<path d="M{left} {y(share):.1f}H{right}" stroke="#d0d7de"/>')
        parts.append(f'<text x="{left - 6}" y="{y(share) + 4:.1f}" text-anchor="end">{share:.0%}</text>')
    parts.append(f'<text x="{(left + right) / 2}" y="{height - 5}" text-anchor="middle">regret</text>')
    for i, (name, values) in enumerate(curves.items()):
        ordered, path = sorted(values), f"M{x(0):.1f} {y(0):.1f}"
        for k, value in enumerate(ordered):
            path += f"H{x(value):.1f}V{y((k + 1) / len(ordered)):.1f}"
        colour = COLOURS[i % len(COLOURS)]
        parts.append(f'<path d="{path}H{right}" fill="none" stroke="{colour}" stroke-width="{3 if i == 0 else 1.5}"/>')
        parts.append(f'<rect x="{right + 10}" y="{top + 18 * i}" width="12" height="4" fill="{colour}"/>')
        parts.append(f'<text x="{right + 28}" y="{top + 18 * i + 6}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
