"""The rule's weights and limits, fitted to the regret on some of the subjects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random

import numpy as np

from benchmarks.choice.cases import Case
from benchmarks.choice.utility import Cell, regret
from maquette.evaluation.choice import Row, choose, goodness
from maquette.evaluation.rule import RULE, Rule, Term

POWERS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SCALES = (0.1, 0.3, 0.7, 1.5, 4.0)  # of measures of which less is better
LEAST_LIMITS = {
    "edit_retention": (None, 0.2, 0.4, 0.6),
    "diversity": (None, 0.2, 0.4, 0.6),
    "likeness": (None, 0.3, 0.6),
}
MOST_LIMITS = {
    "gap": (None, 0.1, 0.2, 0.4), "neighbour_drift": (None, 0.3, 0.6, 1.0, 2.0), "leak": (None, 0.4, 0.6, 0.8),
    "copying": (None, 0.2, 0.4), "drift": (None, 0.5, 1.0, 2.0),
}  # fmt: skip
MORE_IS_BETTER = (
    "likeness", "identity", "obedience", "obedience_margin", "neighbours", "neighbours_margin", "edit_retention",
    "diversity", "benefit", "held_benefit",
)  # fmt: skip
LESS_IS_BETTER = ("drift", "neighbour_drift", "leak", "gap", "copying")
PER_TERM = 0.002  # regret that a term must save to stay
TAIL = 0.25  # weight of the 90th percentile beside the mean


class Table:
    """The cases' measures as arrays (cases, cells), for many rules. Every case has the same cells and measures."""

    def __init__(self, cases: Sequence[Case]) -> None:
        names = list(cases[0].rows[0].values)
        self.values = {name: np.array([[row.values[name] for row in case.rows] for case in cases]) for name in names}
        self.worths = np.array([[regret(case.worths, (row.step, row.weight)) for row in case.rows] for case in cases])
        self._logs: dict[tuple[str, Term], np.ndarray] = {}

    def best(self, rule: Rule) -> np.ndarray:
        """(cases,) the place of the cell that `choose` takes before it looks at standard errors."""
        score, excess = np.zeros(self.worths.shape), np.zeros(self.worths.shape)
        for name, term in rule.terms.items():
            if name in self.values and term.power:
                score = score + term.power * self._log(name, term)
        for name, limit in rule.least.items():
            if name in self.values:
                values = self.values[name]
                excess = np.maximum(excess, np.where(values < limit, (1.0 - values) / (1.0 - limit), 0.0))
        for name, limit in rule.most.items():
            if name in self.values:
                values = self.values[name]
                excess = np.maximum(excess, np.where(values > limit, values / limit, 0.0))
        least = excess.min(1, keepdims=True)
        allowed = np.where(least <= 1.0, 1.0, least * 1.05)
        return np.asarray(np.where(excess <= allowed, score, -np.inf).argmax(1))

    def _log(self, name: str, term: Term) -> np.ndarray:
        key = name, replace(term, power=1.0)
        if key not in self._logs:
            self._logs[key] = np.log(goodness(self.values[name], term))
        return self._logs[key]

    def regrets(self, rule: Rule) -> np.ndarray:
        """(cases,) of the cells that the rule likes best, without its standard error."""
        return np.asarray(np.take_along_axis(self.worths, self.best(rule)[:, None], 1)[:, 0])

    def cost(self, rule: Rule) -> float:
        found = self.regrets(rule)
        terms = sum(term.power > 0 for term in rule.terms.values()) + len(rule.least) + len(rule.most)
        return float(found.mean() + TAIL * np.percentile(found, 90) + PER_TERM * terms)


def fit(cases: Sequence[Case], start: Rule = RULE, restarts: int = 20, seed: int = 0) -> Rule:
    """The rule of the least cost: coordinate descent over powers, scales and limits, from `start` and from so many
    rules drawn by the seed.
    """
    table, random = Table(cases), Random(seed)
    best, least = start, table.cost(start)
    for turn in range(1 + restarts):
        rule = start if turn == 0 else _drawn(start, random)
        rule, cost = _descended(table, rule)
        if cost < least - 1e-9:
            best, least = rule, cost
    return replace(best, terms={n: t for n, t in best.terms.items() if t.power})


def _descended(table: Table, rule: Rule) -> tuple[Rule, float]:
    cost = table.cost(rule)
    while True:
        before = cost
        for changed in _neighbours(rule):
            for other in changed(rule):
                if (found := table.cost(other)) < cost - 1e-9:
                    rule, cost = other, found
        if cost >= before - 1e-9:
            return rule, cost


def _neighbours(rule: Rule) -> Iterable[Callable[[Rule], Iterable[Rule]]]:
    """For each number of the rule, what makes the rules that differ in it alone."""
    for name in MORE_IS_BETTER:
        yield lambda rule, name=name: (_with_term(rule, name, Term(power)) for power in POWERS)
    for name in LESS_IS_BETTER:
        yield lambda rule, name=name: (_with_term(rule, name, Term(p, scale=s)) for p in POWERS for s in SCALES)
    for name, limits in LEAST_LIMITS.items():
        yield lambda rule, name=name, limits=limits: (replace(rule, least=_with(rule.least, name, v)) for v in limits)
    for name, limits in MOST_LIMITS.items():
        yield lambda rule, name=name, limits=limits: (replace(rule, most=_with(rule.most, name, v)) for v in limits)


def _with_term(rule: Rule, name: str, term: Term) -> Rule:
    return replace(rule, terms={**rule.terms, name: term})


def _with(limits: dict[str, float], name: str, value: float | None) -> dict[str, float]:
    rest = {k: v for k, v in limits.items() if k != name}
    return rest if value is None else {**rest, name: value}


def _drawn(start: Rule, random: Random) -> Rule:
    terms = {name: Term(random.choice(POWERS)) for name in MORE_IS_BETTER}
    terms |= {name: Term(random.choice(POWERS), scale=random.choice(SCALES)) for name in LESS_IS_BETTER}
    least = {n: v for n, limits in LEAST_LIMITS.items() if (v := random.choice(limits)) is not None}
    most = {n: v for n, limits in MOST_LIMITS.items() if (v := random.choice(limits)) is not None}
    return replace(start, terms=terms, least=least, most=most)


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
