"""One (step, weight) out of many: the score of each, limits, and the earliest of those that do not differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import MaquetteError
from .rule import LEAST, PANEL_NOISE, RULE, Prefer, Rule, Term

RESAMPLES = 200  # of the paired bootstrap


@dataclass(frozen=True)
class Row:
    """What was measured of a checkpoint at a weight. items: the values of which `values` are the means, in pairs."""

    step: int
    weight: float
    values: Mapping[str, float]
    items: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, step: int, weight: float, items: Mapping[str, Sequence[float]]) -> Row:
        """From the items alone."""
        return cls(step, weight, {name: float(np.mean(values)) for name, values in items.items()}, items)

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "weight": self.weight, **self.values}


@dataclass(frozen=True)
class Fault:
    """A limit that a file passes: the measure, its value, the limit, and how far it is passed (1: just)."""

    measure: str
    value: float
    limit: float
    excess: float


@dataclass(frozen=True)
class Choice:
    """row: the chosen one. best: the one of the highest score. accepted: those that differ from it by no more than one
    standard error, of which `row` is one. faults: limits that even the chosen one passes. scores: in the order of the
    rows. errors: standard error of the difference from the best, likewise.
    """

    row: Row
    best: Row
    prefer: Prefer
    accepted: tuple[Row, ...]
    faults: tuple[Fault, ...]
    scores: tuple[float, ...]
    errors: tuple[float, ...]
    rule: Rule = RULE

    @property
    def step(self) -> int:
        return self.row.step

    @property
    def weight(self) -> float:
        return self.row.weight


def score(values: Mapping[str, float], prefer: Prefer = "balanced", rule: Rule = RULE) -> float:
    """Product of the rule's terms, of those measures that are there."""
    return float(_scores(values, prefer, rule))


def goodness(value: Any, term: Term) -> Any:
    """A measure, or an array of its values, so that more is better, `LEAST` to 1.5."""
    if term.scale is not None:
        return 1.0 / (1.0 + np.maximum(value, 0.0) / term.scale)
    return np.clip(value, LEAST, 1.5)


def faults(values: Mapping[str, float], rule: Rule = RULE) -> list[Fault]:
    """The limits that these values pass, the worst first: the overtraining verdict, which names its reasons."""
    found = [
        Fault(name, values[name], limit, (1.0 - values[name]) / (1.0 - limit))
        for name, limit in rule.least.items()
        if name in values and values[name] < limit
    ]
    found += [
        Fault(name, values[name], limit, values[name] / limit)
        for name, limit in rule.most.items()
        if name in values and values[name] > limit
    ]
    return sorted(found, key=lambda fault: -fault.excess)


def choose(rows: Sequence[Row], prefer: Prefer = "balanced", rule: Rule = RULE, floor: float | None = None) -> Choice:
    """The best (step, weight) within the limits; of those that do not differ from it by more than a standard error, or
    by no more than `floor`, the noise that was measured (`noise.Noise.difference`) or else PANEL_NOISE of the best, the
    earliest step and there the best weight. With "likeness" or "flexible" the score counts otherwise (`Rule.dial`).

    Where every row passes a limit, the candidates are those that pass theirs least. Raises MaquetteError without rows.
    """
    if not rows:
        raise MaquetteError("There is no checkpoint to choose from.")
    scores = [score(row.values, prefer, rule) for row in rows]
    excess = [max((fault.excess for fault in faults(row.values, rule)), default=0.0) for row in rows]
    allowed = 1.0 if min(excess) <= 1.0 else min(excess) * 1.05
    candidates = [i for i in range(len(rows)) if excess[i] <= allowed]
    best = max(candidates, key=lambda i: scores[i])
    errors = [difference_error(rows[best], row, prefer, rule) for row in rows]
    least = PANEL_NOISE * scores[best] if floor is None else floor
    errors = [error if i == best else max(error, least) for i, error in enumerate(errors)]
    accepted = [i for i in candidates if scores[best] - scores[i] <= errors[i]]
    first = min(rows[i].step for i in accepted)
    chosen = max((i for i in accepted if rows[i].step == first), key=lambda i: scores[i])
    return Choice(
        rows[chosen],
        rows[best],
        prefer,
        tuple(rows[i] for i in accepted),
        tuple(faults(rows[chosen].values, rule)),
        tuple(scores),
        tuple(errors),
        rule,
    )


def difference_error(one: Row, other: Row, prefer: Prefer = "balanced", rule: Rule = RULE) -> float:
    """Standard error of the difference of two rows' scores, by a bootstrap over the photos and pictures that both have
    in pairs (Efron and Tibshirani 1993, chapter 6). 0 without items.
    """
    names = [n for n in rule.terms if len(one.items.get(n, ())) == len(other.items.get(n, ())) > 1]
    if not names or one is other:
        return 0.0
    drawn = _resamples(tuple(sorted({len(one.items[name]) for name in names})))
    pair = []
    for row in (one, other):
        again = {n: np.asarray(row.items[n])[drawn[len(row.items[n])]].mean(1) for n in names}
        pair.append(_scores({**row.values, **again}, prefer, rule))
    return float(np.std(pair[0] - pair[1]))


@lru_cache(maxsize=64)
def _resamples(sizes: tuple[int, ...]) -> dict[int, np.ndarray]:
    """For each size n the places drawn from n, (RESAMPLES, n): the same for measures that have their items in pairs."""
    random = np.random.default_rng(0)
    turns = [[random.integers(0, size, size) for size in sizes] for _ in range(RESAMPLES)]
    return {size: np.stack([turn[i] for turn in turns]) for i, size in enumerate(sizes)}


def _scores(values: Mapping[str, Any], prefer: Prefer, rule: Rule) -> np.ndarray:
    """`score` of arrays of measures."""
    total: Any = 0.0
    for name, term in rule.terms.items():
        if name in values:
            total = total + term.power * rule.dial[prefer].get(name, 1.0) * np.log(goodness(values[name], term))
    return np.asarray(np.exp(total))
