"""The rule's powers, fitted to the worth on some of the subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.optimize import nnls

from benchmarks.choice.cases import Case
from benchmarks.choice.utility import Cell, regret
from maquette.evaluation.choice import Row, choose, goodness
from maquette.evaluation.rule import RULE, Rule, Term

MORE_IS_BETTER = (
    "likeness", "identity", "obedience", "obedience_margin", "neighbours", "neighbours_margin", "edit_retention",
    "diversity", "benefit", "held_benefit",
)  # fmt: skip
LESS_IS_BETTER = ("drift", "neighbour_drift", "leak", "gap", "copying")
USUAL_SCALE = 0.7  # of measures of which less is better
RIDGE = 30.0
COUNTS = 0.05  # the least power that a measure is kept for
LEAST_WORTH = 0.05  # of a run's best: whether a cell is worth less than that does not matter


class Table:
    """The cases' measures as arrays (cases, cells), for many rules. Every case has the same cells and measures."""

    def __init__(self, cases: Sequence[Case]) -> None:
        names = list(cases[0].rows[0].values)
        self.values = {name: np.array([[row.values[name] for row in case.rows] for case in cases]) for name in names}
        self.lost = np.array([[regret(case.worths, (row.step, row.weight)) for row in case.rows] for case in cases])
        self._logs: dict[tuple[str, Term], np.ndarray] = {}

    def best(self, rule: Rule) -> np.ndarray:
        """(cases,) the place of the cell that `choose` takes before it looks at standard errors."""
        score = np.zeros(self.lost.shape)
        for name, term in rule.terms.items():
            if name in self.values and term.power:
                score = score + term.power * self.log(name, term)
        return np.asarray(np.where(self.allowed(rule), score, -np.inf).argmax(1))

    def allowed(self, rule: Rule) -> np.ndarray:
        """(cases, cells) whether the cell passes no limit, or, where every one does, passes its own the least."""
        excess = np.zeros(self.lost.shape)
        for name, limit in rule.least.items():
            if name in self.values:
                values = self.values[name]
                excess = np.maximum(excess, np.where(values < limit, (1.0 - values) / (1.0 - limit), 0.0))
        for name, limit in rule.most.items():
            if name in self.values:
                values = self.values[name]
                excess = np.maximum(excess, np.where(values > limit, values / limit, 0.0))
        least = excess.min(1, keepdims=True)
        return np.asarray(excess <= np.where(least <= 1.0, 1.0, least * 1.05))

    def log(self, name: str, term: Term) -> np.ndarray:
        """(cases, cells) log of the measure's goodness."""
        key = name, replace(term, power=1.0)
        if key not in self._logs:
            self._logs[key] = np.log(goodness(self.values[name], term))
        return self._logs[key]

    def regrets(self, rule: Rule) -> np.ndarray:
        """(cases,) of the cells that the rule likes best, without its standard error."""
        return np.asarray(np.take_along_axis(self.lost, self.best(rule)[:, None], 1)[:, 0])


def fit(cases: Sequence[Case], start: Rule = RULE) -> Rule:
    """The rule whose score follows the worth: log(worth) = sum of power x log(goodness) + a number of each run's own,
    by least squares with powers of at least 0 (Lawson and Hanson 1974) and a little ridge. Limits, dial and scales are
    `start`'s.
    """
    table = Table(cases)
    terms = {name: start.terms.get(name, _usual(name)) for name in (*MORE_IS_BETTER, *LESS_IS_BETTER)}
    names = [name for name in terms if name in table.values]
    logs = np.stack([within(table.log(name, terms[name])) for name in names], -1)  # (cases, cells, measures)
    target = within(np.log(np.maximum(1.0 - table.lost, LEAST_WORTH)))
    columns = logs.reshape(-1, len(names))
    ridge = np.sqrt(RIDGE) * columns.std() * np.eye(len(names))
    powers, _ = nnls(np.vstack([columns, ridge]), np.concatenate([target.ravel(), np.zeros(len(names))]))
    found = {n: replace(terms[n], power=round(float(p), 2)) for n, p in zip(names, powers, strict=True) if p >= COUNTS}
    return replace(start, terms=found)


def within(values: np.ndarray) -> np.ndarray:
    """What is left of (cases, cells) without each case's mean."""
    return np.asarray(values - values.mean(1, keepdims=True))


def _usual(name: str) -> Term:
    return Term(1.0) if name in MORE_IS_BETTER else Term(1.0, scale=USUAL_SCALE)


def chooser(rule: Rule, errors: bool = True) -> Callable[[Case], Cell]:
    """The rule as `maquette evaluate` applies it; without errors the best score alone, which is quicker."""

    def chosen(case: Case) -> Cell:
        row = choose(case.rows, rule=rule).row if errors else best_row(case, rule)
        return row.step, row.weight

    return chosen


def best_row(case: Case, rule: Rule) -> Row:
    """`choose(case.rows, rule=rule).best`."""
    return case.rows[int(Table([case]).best(rule)[0])]


def alone(name: str) -> Rule:
    """A rule of one measure, without limits."""
    term = Term(1.0) if name in MORE_IS_BETTER else Term(1.0, scale=1.0)
    return replace(RULE, terms={name: term}, least={}, most={})


def without(rule: Rule, name: str) -> Rule:
    """The rule that does not know a measure."""
    return Rule(
        {k: v for k, v in rule.terms.items() if k != name},
        {k: v for k, v in rule.least.items() if k != name},
        {k: v for k, v in rule.most.items() if k != name},
        rule.dial,
    )
