"""Worth by method, rate, step and weight of the runs of the choice's benchmark, and what today's defaults reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
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
PARTS = {
    "similarity": "similarity to fresh scenes", "probe": "the probe sees the subject",
    "background": "background as asked", "style": "style as asked", "class": "class still itself",
    "neighbours": "other things right",
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A run of the plan. worths: by cell. scores: the product's own, of the measured cells. parts: what the
    judge saw, by cell.
    """

    subject: str
    number: int
    method: str
    rate: int
    prior: bool
    data: str
    worths: Mapping[Cell, float]
    scores: Mapping[Cell, float]
    parts: Mapping[Cell, Mapping[str, float]] = field(default_factory=dict)


def read(rows: Iterable[Mapping[str, Any]]) -> list[Trained]:
    """The runs of results/checkpoint_choice.jsonl.gz."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], []).append(row)
    found = []
    for name, own in by_name.items():
        worths, scores, parts = {}, {}, {}
        for row in own:
            seen = [name for name in PARTS if name in row]
            parts |= {(row["step"], w): {n: row[n][i] for n in seen} for i, w in enumerate(row["weights"])}
            worths |= {(row["step"], w): v for w, v in zip(row["weights"], row["worth"], strict=True)}
            for place, weight in enumerate(row["measured_weights"]):
                scores[row["step"], weight] = score({n: values[place] for n, values in row["measures"].items()})
        first = own[0]
        levels = {key: first[key] for key in ("method", "rate", "prior", "data")}
        found.append(Trained(first["subject_name"], int(name[:2]), worths=worths, scores=scores, parts=parts, **levels))
    return found


def relative(runs: Sequence[Trained]) -> list[Trained]:
    """The same with worths as a share of the best that any run of the same subject has anywhere."""
    best: dict[str, float] = {}
    for run in runs:
        best[run.subject] = max(best.get(run.subject, 0.0), *run.worths.values())
    return [Trained(**{**vars(r), "worths": {cell: v / best[r.subject] for cell, v in r.worths.items()}}) for r in runs]


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


def four(last: int) -> list[int]:
    """The kept steps at the quarters of a run of so many."""
    return [max(s for s in plan.CHECKPOINTS if s <= max(last * q / 4, plan.CHECKPOINTS[0])) for q in (1, 2, 3, 4)]


def by_default(run: Trained) -> Cell:
    """What a run by default, or the nearest to it in the plan, ends with: by its score the best of four checkpoints."""
    return ruled(run, four(DEFAULT_STEP[run.method]))


WAYS: dict[str, Callable[[Trained], Cell]] = {
    "as by default: four checkpoints, step and weight by the rule": by_default,
    "the last of them at weight 1": lambda run: (DEFAULT_STEP[run.method], 1.0),
    "the last of them at weight 0.7": lambda run: (DEFAULT_STEP[run.method], 0.7),
    "all checkpoints up to there, by the rule": lambda run: ruled(
        run, [step for step in plan.CHECKPOINTS if step <= DEFAULT_STEP[run.method]]
    ),
    "four checkpoints of all 320 steps, by the rule": lambda run: ruled(run, four(plan.STEPS)),
    "all 12 checkpoints, by the rule": lambda run: ruled(run, plan.CHECKPOINTS),
    "the truly best cell of the run": lambda run: max(run.worths, key=lambda cell: run.worths[cell]),
}


def best_cell(runs: Sequence[Trained]) -> Cell:
    """Step and weight of the highest mean worth at the lower rates, which are the better ones."""
    low = [run for run in runs if run.rate == 0]
    return max(low[0].worths, key=lambda cell: float(np.mean([run.worths[cell] for run in low])))


def rate_table(runs: Sequence[Trained]) -> str:
    """Mean worth by method and rate (rows) and step (columns), at the weight that is best in the row."""
    lines = [
        f"| method, rate | runs | weight | {' | '.join(map(str, SHOWN_STEPS))} |",
        "|---" * (3 + len(SHOWN_STEPS)) + "|",
    ]
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
    """Today's defaults and other ways, at the default rate, on the reported half and on both; the setting that is best
    on the fitted half is one of them.
    """
    best = best_cell(fitted)
    name = f"one setting for all, the best of the other half (step {best[0]}, weight {best[1]:g})"
    ways = {**WAYS, name: lambda run: best}
    lines = [
        "| way | held-out subjects | less the default's | all subjects | less the default's |",
        "|---" * 5 + "|",
    ]
    for way, cell in ways.items():
        shown = []
        for part in (reported, [*fitted, *reported]):
            runs = [run for run in part if run.rate == 0]
            groups, values = [run.subject for run in runs], [run.worths[cell(run)] for run in runs]
            differences = [v - run.worths[by_default(run)] for v, run in zip(values, runs, strict=True)]
            shown += [bracketed(interval(values, groups)), bracketed(interval(differences, groups), "+")]
        lines.append(f"| {way} | {' | '.join(shown)} |")
    return "\n".join(lines)


def bracketed(found: tuple[float, float, float], sign: str = "") -> str:
    mean, low, high = found
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"


def further(runs: Sequence[Trained], method: str, times: int) -> str:
    """What `by_default` would end with at so many times the method's rate, less what it ends with."""
    own = [run for run in runs if run.method == method and run.rate == 0]
    if not own:
        return "–"
    cells = [(ruled(run, four(DEFAULT_STEP[method] * times)), by_default(run)) for run in own]
    differences = [run.worths[far] - run.worths[near] for run, (far, near) in zip(own, cells, strict=True)]
    return bracketed(interval(differences, [run.subject for run in own]), "+")


def parts_table(runs: Sequence[Trained]) -> str:
    """What the judge sees at the cell that the rule takes, at the lower rates: mean over the runs of each level."""
    low = [run for run in runs if run.rate == 0]
    levels: dict[str, Callable[[Trained], bool]] = {
        "LoRA, rank 4": lambda run: run.method == "lora-4",
        "LoRA, rank 16": lambda run: run.method == "lora-16",
        "DreamBooth": lambda run: run.method == "dreambooth",
        "LoKr": lambda run: run.method == "lokr",
        "without prior preservation": lambda run: not run.prior,
        "with prior preservation": lambda run: run.prior,
        "14 photos, captioned": lambda run: run.data == "captioned",
        "14 photos, no captions": lambda run: run.data == "uncaptioned",
        "5 photos, captioned": lambda run: run.data == "five",
    }
    lines = [f"| | runs | worth | {' | '.join(PARTS.values())} |", "|---" * (3 + len(PARTS)) + "|"]
    for name, has in levels.items():
        own = [run for run in low if has(run)]
        if not own:
            continue
        cells = [ruled(run, plan.CHECKPOINTS) for run in own]
        worth = bracketed(interval([r.worths[c] for r, c in zip(own, cells, strict=True)], [r.subject for r in own]))
        seen = [np.mean([run.parts[cell][n] for run, cell in zip(own, cells, strict=True)]) for n in PARTS]
        lines.append(f"| {name} | {len(own)} | {worth} | {' | '.join(f'{value:.2f}' for value in seen)} |")
    return "\n".join(lines)


def paired(runs: Sequence[Trained], one: Callable[[Trained], bool], other: Callable[[Trained], bool]) -> str:
    """Difference of the best worth between two levels within the subjects that have both, with its interval."""
    differences = []
    for subject in sorted({run.subject for run in runs}):
        a = [max(r.worths.values()) for r in runs if r.subject == subject and one(r)]
        b = [max(r.worths.values()) for r in runs if r.subject == subject and other(r)]
        if a and b:
            differences.append(float(np.mean(a) - np.mean(b)))
    if not differences:
        return "–"
    return f"{bracketed(interval(differences, range(len(differences))), '+')}, {len(differences)} subjects"
