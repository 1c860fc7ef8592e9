"""Other forms of the rule, each told of every subject by the others alone (leave one subject out)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.choice import fitting
from benchmarks.choice.cases import Case
from benchmarks.choice.fitting import LEAST_WORTH, Table, within
from benchmarks.choice.utility import cell_of
from maquette.evaluation.rule import RULE, Rule, Term

RIDGES = 30.0
RESAMPLES = 2000


@dataclass(frozen=True)
class Field:
    """All runs as arrays. logs: (cases, cells, measures) of each measure's goodness. target: (cases, cells) log worth,
    each run's mean taken out. cells: step and weight of each place. methods, subjects: of each run.
    """

    cases: Sequence[Case]
    table: Table
    logs: np.ndarray
    target: np.ndarray
    cells: list[tuple[int, float]]
    methods: np.ndarray
    subjects: np.ndarray

    @staticmethod
    def of(cases: Sequence[Case]) -> Field:
        table = Table(cases)
        names = [n for n in (*fitting.MORE_IS_BETTER, *fitting.LESS_IS_BETTER) if n in table.values]
        logs = np.stack([table.log(n, RULE.terms.get(n, usual(n))) for n in names], -1)
        return Field(
            cases, table, within(logs), within(np.log(np.maximum(1.0 - table.lost, LEAST_WORTH))),
            [(row.step, row.weight) for row in cases[0].rows],
            np.array([case.setting["method"] for case in cases]), np.array([case.subject for case in cases]),
        )  # fmt: skip


def usual(name: str) -> Term:
    return Term(1.0) if name in fitting.MORE_IS_BETTER else Term(1.0, scale=fitting.USUAL_SCALE)


Scorer = Callable[[Field, np.ndarray, np.ndarray], np.ndarray]
"""field, places of the runs to learn from and of those to score -> (scored runs, cells)."""


def shipped(field: Field, known: np.ndarray, asked: np.ndarray, rule: Rule = RULE) -> np.ndarray:
    return within(sum(t.power * field.table.log(n, t) for n, t in rule.terms.items() if n in field.table.values))[asked]  # type: ignore[index]


def refitted(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The rule as `fit` finds it, from these runs."""
    return shipped(field, known, asked, fitting.fit([field.cases[i] for i in known]))


def ridge(features: np.ndarray, target: np.ndarray, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Least squares with any sign, each column scaled, a little ridge."""
    x, y = features[known].reshape(-1, features.shape[-1]), target[known].ravel()
    scale = x.std(0) + 1e-9
    weights = np.linalg.solve((x / scale).T @ (x / scale) + RIDGES * np.eye(x.shape[1]), (x / scale).T @ y)
    return np.asarray(features[asked] / scale @ weights)


def any_sign(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    return ridge(field.logs, field.target, known, asked)


def squares(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    both = np.concatenate([field.logs, within(field.logs**2)], -1)
    return ridge(both, field.target, known, asked)


def standard(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Measures by how they compare within their run: each as a rank among its cells."""
    ranks = field.logs.argsort(1).argsort(1) / field.logs.shape[1]
    return ridge(within(ranks), field.target, known, asked)


def with_place(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Measures, and log(step), weight, their squares and product."""
    s = np.log([step for step, _ in field.cells])
    w = np.array([weight for _, weight in field.cells])
    place = np.stack([s, w, s * s, w * w, s * w], -1)
    place = np.broadcast_to(place - place.mean(0), (*field.target.shape, place.shape[-1]))
    return ridge(np.concatenate([field.logs, place], -1), field.target, known, asked)


def margins(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """The three measures that follow the worth over steps, as they are."""
    rule = Rule({n: Term(1.0) for n in ("neighbours_margin", "obedience_margin", "edit_retention")}, {}, {}, RULE.dial)
    return shipped(field, known, asked, rule)


def prior(field: Field, known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Each cell's mean over the others' runs of the same method: no look at any measure."""
    found = np.zeros((len(asked), field.target.shape[1]))
    for place, i in enumerate(asked):
        own = known[field.methods[known] == field.methods[i]]
        found[place] = field.target[own].mean(0)
    return found


def with_prior(of: Scorer, share: float) -> Scorer:
    return lambda field, known, asked: of(field, known, asked) + share * prior(field, known, asked)


FORMS: dict[str, tuple[Scorer, bool]] = {  # and whether the rule's limits hold
    "the rule as shipped, best score alone": (shipped, True),
    "the same without limits": (shipped, False),
    "its powers fitted anew": (refitted, True),
    "powers of any sign": (any_sign, False),
    "measures and their squares": (squares, False),
    "measures as ranks within the run": (standard, False),
    "measures, step and weight": (with_place, False),
    "the three margins alone": (margins, False),
    "the mean of others' runs of the method (no measure)": (prior, False),
    "the rule and half that mean": (with_prior(shipped, 0.5), True),
    "the rule and that mean": (with_prior(shipped, 1.0), True),
    "any sign and that mean": (with_prior(any_sign, 1.0), False),
}


def compared(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """Regret of every form, and its mean difference from the shipped rule's with a 95 % interval over subjects."""
    field = Field.of(cases)
    lost = {name: losses(field, *form) for name, form in FORMS.items()}
    first = next(iter(lost.values()))
    return {name: _told(field, values, values - first) for name, values in lost.items()}


PARTS = ("similarity", "background", "style", "class", "neighbours")


def missing(cases: Sequence[Case]) -> dict[str, dict[str, Any]]:
    """Regret where the measures, powers of any sign, are joined by what only the judge knows: which part of the worth
    they fail to see. The parts are those of the very pictures that give the worth, so that this is a best case.
    """
    field = Field.of(cases)
    tower = np.array([[np.mean(case.tower[cell]) for cell in field.cells] for case in cases])
    known = {part: within(np.log(np.maximum(_true(field, part), LEAST_WORTH))) for part in PARTS}
    joined: dict[str, list[np.ndarray]] = {"nothing more": [], "pocket's image tower": [within(tower)]}
    joined |= {f"true {part}": [values] for part, values in known.items()}
    joined["all five"] = [*known.values()]
    plain = losses(field, any_sign, False)
    found = {}
    for name, more in joined.items():
        values = np.concatenate([field.logs, *(column[..., None] for column in more)], -1)
        lost = losses(field, lambda f, known, asked, values=values: ridge(values, f.target, known, asked), False)
        found[name] = _told(field, lost, lost - plain)
    return found


def _true(field: Field, part: str) -> np.ndarray:
    """(cases, cells) what the judge saw of it."""
    found = []
    for case in field.cases:
        means = {cell_of(n): float(np.mean([np.mean(d[part]) for d in v])) for n, v in case.truth["draws"].items()}
        found.append([means[cell] for cell in field.cells])
    return np.array(found)


def losses(field: Field, scorer: Scorer, limited: bool) -> np.ndarray:
    """(cases,) regret of the cell with the highest score, learned from the other subjects."""
    every, found = np.arange(len(field.cases)), np.zeros(len(field.cases))
    allowed = field.table.allowed(RULE) if limited else np.ones(field.target.shape, bool)
    for subject in sorted(set(field.subjects.tolist())):
        asked = every[field.subjects == subject]
        scores = scorer(field, every[field.subjects != subject], asked)
        chosen = np.where(allowed[asked], scores, -np.inf).argmax(1)
        found[asked] = field.table.lost[asked, chosen]
    return found


def _told(field: Field, values: np.ndarray, differences: np.ndarray) -> dict[str, Any]:
    sums = np.array(
        [[differences[field.subjects == s].sum(), (field.subjects == s).sum()] for s in set(field.subjects)]
    )
    drawn = sums[np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))].sum(1)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    told = {
        "median": np.median(values), "p90": np.percentile(values, 90), "mean": values.mean(),
        "worst": values.max(), "difference": differences.mean(), "low": low, "high": high,
    }  # fmt: skip
    return {name: round(float(value), 4) for name, value in told.items()}
