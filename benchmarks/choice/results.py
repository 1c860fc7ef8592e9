"""Regret of the rule and of its rivals, what carries the choice, how sure the truth is; and the rows themselves."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choice import fitting, plan
from benchmarks.choice.cases import Case, train_losses
from benchmarks.choice.rivals import rivals
from benchmarks.choice.truth import label
from benchmarks.choice.utility import Cell, cell_of, crossed_regret, regret
from maquette.evaluation.rule import RULE, Rule

Chooser = Callable[[Case], Cell]
FEWEST = 12  # runs in each half, below which nothing is fitted: a rule has more numbers than that


def halves(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """To fit and to report: the subjects of even and of odd number."""
    return [c for c in cases if c.subject % 2 == 0], [c for c in cases if c.subject % 2]


def summary(cases: Sequence[Case], chosen: Mapping[str, Cell]) -> dict[str, float]:
    """Regret over the cases: median, 90th percentile, mean and worst; the same by the second opinion, and with the best
    cell found by one half of the pictures and compared by the other (`crossed`). chosen: cell by the case's name.
    """
    found, second = (
        np.array([regret(getattr(case, name), chosen[case.name]) for case in cases]) for name in ("worths", "second")
    )
    crossed = [crossed_regret(case.halves, chosen[case.name]) for case in cases]
    result = {
        "median": np.median(found), "p90": np.percentile(found, 90), "mean": found.mean(), "worst": found.max(),
        "second_median": np.median(second), "second_p90": np.percentile(second, 90),
        "crossed_median": np.median(crossed), "crossed_p90": np.percentile(crossed, 90),
    }  # fmt: skip
    return {name: round(float(value), 4) for name, value in result.items()}


def results(cases: Sequence[Case]) -> dict[str, Any]:
    """Everything that the report tells, as JSON. With fewer than FEWEST cases in a half nothing is fitted."""
    fitted, reported = halves(cases)
    told: dict[str, Any] = {
        "runs": len(cases),
        "subjects": len({case.subject for case in cases}),
        "levels": levels(cases),
        "noise": noise(cases),
        "spearman": correlations(cases),
        "provisional": ranking(cases, cases, {"the rule as shipped": fitting.chooser(RULE)}),
        "by_level": by_level(cases, fitting.chooser(RULE)),
        "weights": weight_alone(cases, RULE),
        "single_measures": {name: single(cases, name) for name in sorted(cases[0].rows[0].values)},
    }
    if min(len(fitted), len(reported)) >= FEWEST:
        rule = fitting.fit(fitted)
        choosers = {
            "the rule, fitted": fitting.chooser(rule),
            "the rule, fitted, best score alone": fitting.chooser(rule, errors=False),
            "the rule as shipped": fitting.chooser(RULE),
        }
        told |= {
            "fitted_on": len(fitted),
            "reported_on": len(reported),
            "rule": {"terms": {k: asdict(t) for k, t in rule.terms.items()}, "least": rule.least, "most": rule.most},
            "fitted": ranking(reported, fitted, choosers),
            "ablation": ablation(reported, rule),
        }
    return told


def ranking(cases: Sequence[Case], fitted: Sequence[Case], ours: Mapping[str, Chooser]) -> dict[str, dict[str, float]]:
    """Summary by the name of each way to choose."""
    found = {}
    for name, choose in {**ours, **rivals(fitted)}.items():
        found[name] = summary(cases, {case.name: choose(case) for case in cases})
    return found


def single(cases: Sequence[Case], name: str) -> dict[str, float]:
    """The choice by one measure alone."""
    if name not in (*fitting.MORE_IS_BETTER, *fitting.LESS_IS_BETTER):
        return {}
    rule = fitting.alone(name)
    return summary(cases, {case.name: fitting.chooser(rule, errors=False)(case) for case in cases})


def ablation(cases: Sequence[Case], rule: Rule) -> dict[str, dict[str, float]]:
    """The fitted rule without each measure that it uses."""
    names = {*rule.terms, *rule.least, *rule.most}
    found = {}
    for name in sorted(names):
        less = fitting.without(rule, name)
        if less.terms:
            choose = fitting.chooser(less, errors=False)
            found[name] = summary(cases, {case.name: choose(case) for case in cases})
    return found


def weight_alone(cases: Sequence[Case], rule: Rule) -> dict[str, float]:
    """Where the step is the one that is truly best: the regret of the weight that the rule takes there, beside that of
    always taking 1, or 0.7."""
    found: dict[str, list[float]] = {"chosen": [], "always 1": [], "always 0.7": []}
    for case in cases:
        measured = {(row.step, row.weight) for row in case.rows}
        worths = {cell: worth for cell, worth in case.worths.items() if cell in measured}
        step = max(worths, key=lambda cell: worths[cell])[0]
        here = {cell: worth for cell, worth in worths.items() if cell[0] == step}
        place = fitting.best_row(_only(case, step), rule)
        for name, cell in (
            ("chosen", (place.step, place.weight)),
            ("always 1", (step, 1.0)),
            ("always 0.7", (step, 0.7)),
        ):
            if cell in here:
                found[name].append(regret(here, cell))
    return {name: round(float(np.median(values)), 4) for name, values in found.items() if values}


def _only(case: Case, step: int) -> Case:
    return replace(case, rows=tuple(row for row in case.rows if row.step == step))


def correlations(cases: Sequence[Case]) -> dict[str, float]:
    """Median over runs of the Spearman correlation, over steps at weight 1, of each measure with the true worth, and of
    the training loss with it (positive where a lower loss is the worse model)."""
    found: dict[str, list[float]] = {}
    for case in cases:
        worths = [case.worths[step, 1.0] for step in case.steps]
        for name in case.rows[0].values:
            known = [step for step in case.steps if name in case.at(step).values]
            values = [case.at(step).values[name] for step in known]
            found.setdefault(name, []).append(spearman(values, [case.worths[step, 1.0] for step in known]))
        losses = train_losses(case)
        found.setdefault("train_loss", []).append(spearman([losses[s] for s in case.steps], worths))
        tower = [float(np.mean(case.tower[s, 1.0])) for s in case.steps]
        found.setdefault("tower", []).append(spearman(tower, worths))
    return {name: round(float(np.nanmedian(values)), 2) for name, values in sorted(found.items())}


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation with mean ranks for ties; 0 where one of both does not vary."""
    a, b = _ranks(one), _ranks(other)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    return np.array([(array < v).sum() + ((array == v).sum() - 1) / 2 for v in array])


def noise(cases: Sequence[Case]) -> dict[str, float]:
    """How sure the truth is: median Spearman of the worths by either half of the pictures, and the regret of the cell
    that is best by one half, by the other: what a perfect rule would be charged by so few pictures."""
    agree, charged = [], []
    for case in cases:
        one, two = halves_of(case)
        agree.append(spearman([one[c] for c in one], [two[c] for c in one]))
        charged.append(np.mean([regret(y, max(x, key=lambda c, x=x: x[c])) for x, y in ((one, two), (two, one))]))  # type: ignore[misc]
    return {
        "runs": len(agree),
        "spearman_of_halves": round(float(np.median(agree)), 3),
        "regret_of_one_half_by_the_other": round(float(np.median(charged)), 4),
    }


def halves_of(case: Case) -> tuple[dict[Cell, float], dict[Cell, float]]:
    """The case's halves at the weights that were drawn."""
    one, other = ({c: v for c, v in half.items() if c[1] in plan.WEIGHTS} for half in case.halves)
    return one, other


FACTORS = ("method", "rate", "prior", "data")


def levels(cases: Iterable[Case]) -> dict[str, dict[str, int]]:
    """How many runs have each level."""
    found: dict[str, dict[str, int]] = {factor: {} for factor in FACTORS}
    for case in cases:
        for factor in FACTORS:
            level = str(case.setting[factor])
            found[factor][level] = found[factor].get(level, 0) + 1
    return found


def by_level(cases: Sequence[Case], choose: Chooser) -> dict[str, dict[str, Any]]:
    """Where the rule fails: its regret and the last step's, by level; the truly best step and weight there."""
    found = {}
    for factor in FACTORS:
        for level in sorted({str(case.setting[factor]) for case in cases}):
            part = [case for case in cases if str(case.setting[factor]) == level]
            best = [
                max(((s, w) for s, w in case.worths if w in plan.WEIGHTS), key=case.worths.__getitem__) for case in part
            ]
            found[f"{factor} {level}"] = {
                "runs": len(part),
                "rule": round(float(np.median([regret(c.worths, choose(c)) for c in part])), 4),
                "last": round(float(np.median([regret(c.worths, (c.steps[-1], 1.0)) for c in part])), 4),
                "best_step": float(np.median([step for step, _ in best])),
                "best_weight": float(np.median([weight for _, weight in best])),
            }
    return found


def rows(case: Case) -> Iterable[dict[str, Any]]:
    """One row for each checkpoint, with a value for each weight: worth and its parts, then the measures."""
    losses = train_losses(case)
    judged = {cell_of(name): parts for name, parts in case.truth["draws"].items()}
    for step in case.steps:
        cells = [(step, weight) for weight in plan.WEIGHTS if (step, weight) in judged]
        measured = {(row.step, row.weight): row for row in case.rows if row.step == step}
        row: dict[str, Any] = {
            **{k: case.setting[k] for k in ("name", "subject_name", *FACTORS, "learning_rate")},
            "step": step,
            "train_loss": round(losses[step], 4),
            "weights": [weight for _, weight in cells],
            "worth": [round(case.worths[cell], 3) for cell in cells],
            "worth_by_probe": [round(case.second[cell], 3) for cell in cells],
            "draws": [len(judged[cell]) for cell in cells],
        }
        for part in judged[cells[0]][0]:
            row[part] = [round(float(np.mean([np.mean(d[part]) for d in judged[cell]])), 3) for cell in cells]
        row["measured_weights"] = sorted(weight for _, weight in measured)
        row["measures"] = {
            name: [round(measured[step, w].values[name], 3) for w in row["measured_weights"]]
            for name in next(iter(measured.values())).values
        }
        row["tower"] = [round(float(np.mean(case.tower[step, w])), 3) for w in row["measured_weights"]]
        yield row


def write_rows(cases: Sequence[Case], file: Path) -> None:
    """All rows as compressed JSON lines, the same bytes for the same rows."""
    text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for case in cases for row in rows(case))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(file.read_bytes()).decode().splitlines()]


__all__ = ["Chooser", "label", "read_rows", "results", "write_rows"]
