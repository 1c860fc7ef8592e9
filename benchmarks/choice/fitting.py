"""The rule's powers, fitted to the worth on some of the subjects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

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
COUNTED = tuple(name for name in (*MORE_IS_BETTER, *LESS_IS_BETTER) if name != "identity")  # likeness says it better
RIDGE = 8e-4  # of the squares of the powers, each in units of its measure's deviation
SHARPNESS = 8.0  # of the softplus that keeps powers above 0
TOTAL = 3.6  # so that scores stay of the size that pages are used to
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
    """The rule whose choice is worth most: powers of at least 0 that make the mean regret least where a cell's chance
    to be chosen is its share of all scores; for large powers that is the best score's choice, and it has a gradient.
    A little ridge keeps powers small; they are told with the sum `TOTAL`. Limits, dial and scales are `start`'s.
    """
    table = Table(cases)
    terms = {name: start.terms.get(name, _usual(name)) for name in COUNTED}
    names = [name for name in terms if name in table.values]
    logs = torch.from_numpy(np.stack([within(table.log(name, terms[name])) for name in names], -1))
    spread = logs.flatten(0, 1).std(0) + 1e-9
    logs, lost = logs / spread, torch.from_numpy(table.lost)
    free = torch.full((len(names),), 0.3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([free], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        powers = F.softplus(SHARPNESS * free) / SHARPNESS
        found = (torch.softmax(logs @ powers, 1) * lost).sum(1).mean() + RIDGE * powers.square().sum()
        found.backward()
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    powers = (F.softplus(SHARPNESS * free) / SHARPNESS / spread).detach().numpy()
    shares = [round(float(power), 2) for power in powers * TOTAL / powers.sum()]
    kept = {name: replace(terms[name], power=p) for name, p in zip(names, shares, strict=True) if p >= COUNTS}
    return replace(start, terms=kept)


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
