"""Worth by method, rate, step and weight of the runs of the choice's benchmark, and what today's defaults reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.utility import Cell
from maquette.evaluation.choice import score

# a run by default (300 steps of 8, a cosine) moves as far, by the sum of its learning rates, as so many steps of the
# plan's lower, constant rate; LoKr's default is a third of the plan's lower rate
DEFAULT_STEP = {"lora-4": 160, "lora-16": 160, "dreambooth": 200, "lokr": 60}
SHOWN_STEPS = (20, 40, 60, 100, 160, 240, 320)
RESAMPLES = 4000


@dataclass(frozen=True)
class Trained:
    """A run of the plan. worths: smoothed, by cell. scores: the product's own, of the measured cells."""

    subject: str
    number: int
    method: str
    rate: int
    prior: bool
    data: str
    worths: Mapping[Cell, float]
    scores: Mapping[Cell, float]


def read(rows: Iterable[Mapping[str, Any]]) -> list[Trained]:
    """The runs of results/checkpoint_choice.jsonl.gz."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    found = []
    for name, own in by_name.items():
        worths, scores = {}, {}
        for row in own:
            worths |= {(row["step"], w): v for w, v in zip(row["weights"], row["worth_smoothed"], strict=True)}
            for place, weight in enumerate(row["measured_weights"]):
                scores[row["step"], weight] = score({n: values[place] for n, values in row["measures"].items()})
        first = own[0]
        levels = {key: first[key] for key in ("method", "rate", "prior", "data")}
        found.append(Trained(first["subject_name"], int(name[:2]), worths=worths, scores=scores, **levels))
    return found


def relative(runs: Sequence[Trained]) -> list[Trained]:
    """The same with worths as a share of the best that any run of the same subject has anywhere."""
    best: dict[str, float] = {}
    for run in runs:
        best[run.subject] = max(best.get(run.subject, 0.0), *run.worths.values())
    return [
        Trained(**{**vars(r), "worths": {cell: v / best[r.subject] for cell, v in r.worths.items()}}) for r in runs
    ]


def interval(values: Sequence[float], groups: Sequence[Any]) -> tuple[float, float, float]:
    """Mean, and its 95 % interval by a bootstrap over the groups (subjects)."""
    table = {g: [v for v, own in zip(values, groups, strict=True) if own == g] for g in sorted(set(groups))}
    sums = np.array([[sum(own), len(own)] for own in table.values()])
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    means = sums[drawn].sum(1)
    low, high = np.percentile(means[:, 0] / means[:, 1], [2.5, 97.5])
    return float(np.mean(values)), float(low), float(high)


def ruled(run: Trained, steps: Sequence[int]) -> Cell:
    """The (step, weight) that the product's score likes best among these checkpoints."""
    return max((cell for cell in run.scores if cell[0] in steps), key=lambda cell: run.scores[cell])


def by_default(run: Trained) -> Cell:
    """What a run by default, or the nearest to it in the plan, ends with: the best of four checkpoints, by its score."""
    last = DEFAULT_STEP[run.method]
    return ruled(run, [max(s for s in plan.CHECKPOINTS if s <= max(last * q / 4, 20)) for q in (1, 2, 3, 4)])


WAYS: dict[str, Callable[[Trained], Cell]] = {
    "as by default: four checkpoints, step and weight by the rule": by_default,
    "the default's last step at weight 1": lambda run: (DEFAULT_STEP[run.method], 1.0),
    "the default's last step at weight 0.7": lambda run: (DEFAULT_STEP[run.method], 0.7),
    "all 12 checkpoints, by the rule": lambda run: ruled(run, plan.CHECKPOINTS),
}


def best_setting(runs: Sequence[Trained]) -> tuple[int, Cell]:
    """Rate, step and weight of the highest mean worth."""
    means = {}
    for rate in sorted({run.rate for run in runs}):
        own = [run for run in runs if run.rate == rate]
        means |= {(rate, cell): float(np.mean([run.worths[cell] for run in own])) for cell in own[0].worths}
    return max(means, key=lambda key: means[key])


def rate_table(runs: Sequence[Trained]) -> str:
    """Mean worth by method and rate (rows) and step (columns), at the weight that is best in the row."""
    lines = [f"| method, rate | runs | weight | {' | '.join(map(str, SHOWN_STEPS))} |", "|---" * (3 + len(SHOWN_STEPS)) + "|"]
    for method, rates in plan.RATES.items():
        for rate, value in enumerate(rates):
            own = [run for run in runs if (run.method, run.rate) == (method, rate)]
            for weight in (0.5, 0.7, 1.0):
                means = [np.mean([run.worths[step, weight] for run in own]) for step in SHOWN_STEPS]
                top = max(means)
                cells = [f"**{m:.2f}**" if m == top else f"{m:.2f}" for m in means]
                lines.append(f"| {method}, {value:g} | {len(own)} | {weight:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def default_table(fitted: Sequence[Trained], reported: Sequence[Trained]) -> str:
    """Of each method today's default against the best setting of the fitted half, on the reported half."""
    lines = [
        "| method | best of the sweep on one half | worth on the other half | "
        + " | ".join(WAYS)
        + " |",
        "|---" * (3 + len(WAYS)) + "|",
    ]
    for method in (*plan.RATES, "all"):
        lines.append(_default_row(method, fitted, reported))
    return "\n".join(lines)


def _default_row(method: str, fitted: Sequence[Trained], reported: Sequence[Trained]) -> str:
    names = list(plan.RATES) if method == "all" else [method]
    best = {n: best_setting([run for run in fitted if run.method == n]) for n in names}
    low = [run for run in reported if run.method in names and run.rate == 0]
    top = [run for run in reported if run.method in names and run.rate == best[run.method][0]]
    reached = interval([run.worths[best[run.method][1]] for run in top], [run.subject for run in top])
    rate, (step, weight) = best[names[0]]
    setting = "each its own" if method == "all" else f"{plan.RATES[method][rate]:g}, step {step}, weight {weight:g}"
    cells = []
    for way in WAYS.values():
        mean, below, above = interval([run.worths[way(run)] for run in low], [run.subject for run in low])
        cells.append(f"{mean:.2f} ({below:.2f} to {above:.2f})")
    return f"| {method} | {setting} | {reached[0]:.2f} ({reached[1]:.2f} to {reached[2]:.2f}) | {' | '.join(cells)} |"


def paired(runs: Sequence[Trained], one: Callable[[Trained], bool], other: Callable[[Trained], bool]) -> str:
    """Difference of the best worth between two levels within the subjects that have both, with its interval."""
    differences = []
    for subject in sorted({run.subject for run in runs}):
        a = [max(r.worths.values()) for r in runs if r.subject == subject and one(r)]
        b = [max(r.worths.values()) for r in runs if r.subject == subject and other(r)]
        if a and b:
            differences.append(float(np.mean(a) - np.mean(b)))
    mean, low, high = interval(differences, list(range(len(differences))))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f}), {len(differences)} subjects"
