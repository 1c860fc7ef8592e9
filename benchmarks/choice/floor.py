"""How low a regret can be told: what the truth's own noise charges a choice that is never wrong, and an oracle.

A world in which the truth is known: a run's worths are taken as true, and what other pictures would have said is drawn
again and again from the pictures themselves (the same ones for every cell, as cells share their prompts and seeds;
n - 1 of n, so that the variance of a mean is right: Rao and Wu 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.cases import Case
from benchmarks.choice.truth import DRAWS, label
from benchmarks.choice.utility import KEPT, Cell, pooled, regret

TIMES = (0.25, 0.5, 1, 2, 4)  # as many pictures as a cell has
PICTURES = 16 * DRAWS
RESAMPLES = 200
BARS = {"median": 0.05, "p90": 0.15}
CELLS: list[Cell] = [(step, weight) for step in plan.CHECKPOINTS for weight in plan.WEIGHTS]


def drawn_again(case: Case, times: float, count: int, seed: int) -> np.ndarray:
    """(count, cells) worths as `times` as many other pictures would give them, and last those of the pictures."""
    draws = [case.truth["draws"][label(*cell)] for cell in CELLS]
    own, styled = (len(draws[0][0][name]) for name in ("similarity", "style"))
    parts = {name: np.array([pooled(draw)[name] for draw in draws]) for name in draws[0][0]}  # (cells, pictures)
    grounds = parts["background"].reshape(len(CELLS), -1, own + styled)
    parts["own ground"], parts["styled ground"] = (
        part.reshape(len(CELLS), -1) for part in (grounds[..., :own], grounds[..., own:])
    )
    random = np.random.default_rng(seed)
    sizes = {name: parts[name].shape[1] for name in ("similarity", "style", *KEPT)}
    picked = {n: random.integers(0, size, (count, max(round(times * (size - 1)), 1))) for n, size in sizes.items()}
    picked |= {"own ground": picked["similarity"], "styled ground": picked["style"]}
    again = {name: parts[name][:, place].mean(2).T for name, place in picked.items()}
    whole = {name: parts[name].mean(1)[None] for name in picked}
    reference = case.truth["reference"]
    return np.concatenate([_worth(_grounds(values, own, styled), reference) for values in (again, whole)])


def _grounds(values: dict[str, np.ndarray], own: int, styled: int) -> dict[str, np.ndarray]:
    """The share of backgrounds as asked, of both kinds of picture."""
    both = (own * values["own ground"] + styled * values["styled ground"]) / (own + styled)
    return {**values, "background": both}


def _worth(mean: dict[str, np.ndarray], reference: dict[str, float]) -> np.ndarray:
    """`utility.worth` of arrays."""
    low = reference["base_similarity"]
    subject = np.maximum((mean["similarity"] - low) / max(reference["ceiling"] - low, 1e-3), 0.0)
    shares = {n: np.minimum(1.0, mean[n] / max(reference[f"base_{n}"], 1e-3)) for n in ("style", *KEPT)}
    return np.asarray(
        subject * (mean["background"] + shares["style"]) / 2 * (shares["class"] + shares["neighbours"]) / 2
    )


def charges(case: Case, times: int, number: int) -> dict[str, np.ndarray]:
    """(RESAMPLES,) regrets in the known world. never_wrong: of the truly best cell, as another draw charges it.
    oracle: of the best cell by so many pictures, as others charge it. truly: of the same, by the truth.
    """
    worths = drawn_again(case, times, 2 * RESAMPLES, number)
    true = np.maximum(np.array([case.worths[cell] for cell in CELLS]), 0.0)
    seen = true + worths[:-1] - worths[-1]
    one, other = seen[:RESAMPLES], seen[RESAMPLES:]
    best, chosen = int(true.argmax()), one.argmax(1)
    rows = np.arange(RESAMPLES)
    top = np.maximum(other.max(1), 1e-6)
    return {
        "never_wrong": 1.0 - other[:, best] / top,
        "oracle": 1.0 - other[rows, chosen] / top,
        "truly": 1.0 - true[chosen] / max(true.max(), 1e-6),
    }


def floor(cases: Sequence[Case]) -> dict[str, Any]:
    """Median and 90th percentile over runs and resamples, by the number of pictures of a cell."""
    found: dict[str, Any] = {}
    for times in TIMES:
        own = [charges(case, times, number) for number, case in enumerate(cases)]
        every = {name: np.concatenate([one[name] for one in own]) for name in own[0]}
        found[str(round(times * PICTURES))] = {name: _two(values) for name, values in every.items()}
    return found


def _two(values: np.ndarray) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "p90": round(float(np.percentile(values, 90)), 4)}


def beside_a_half(cases: Sequence[Case], chosen: dict[str, Cell], count: int = 2000) -> dict[str, Any]:
    """The rule beside somebody who sees half of the pictures of every cell and takes the best worth there; both by the
    other half, both ways round. rule, oracle: regret. more: how much higher the rule's is.
    worth: the rule's mean worth over the oracle's. With 95 % intervals by a bootstrap over subjects.
    """
    rows: dict[int, list[tuple[float, ...]]] = {}
    for case in cases:
        one, other = ({cell: half[cell] for cell in CELLS} for half in case.halves)
        for seen, judge in ((one, other), (other, one)):
            best, own = max(seen, key=lambda cell: seen[cell]), chosen[case.name]
            values = (regret(judge, own), regret(judge, best), judge[own], judge[best])
            rows.setdefault(case.subject, []).append(values)
    groups = [np.array(own) for own in rows.values()]
    random = np.random.default_rng(0)
    drawn = [np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))]) for _ in range(count)]
    every = np.concatenate(groups)

    def sure(of: Callable[[np.ndarray], float]) -> list[float]:
        low, high = np.percentile([of(values) for values in drawn], [2.5, 97.5])
        return [round(float(v), 4) for v in (of(every), low, high)]

    return {
        "rule": _two(every[:, 0]),
        "oracle": _two(every[:, 1]),
        "more": {
            "median": sure(lambda v: float(np.median(v[:, 0]) - np.median(v[:, 1]))),
            "p90": sure(lambda v: float(np.percentile(v[:, 0], 90) - np.percentile(v[:, 1], 90))),
        },
        "worth": sure(lambda v: float(v[:, 2].sum() / v[:, 3].sum())),
    }


def sureness(cases: Sequence[Case], chosen: dict[str, Cell], count: int = 2000) -> dict[str, list[float]]:
    """95 % intervals of the median and of the 90th percentile of the regret, by a bootstrap over subjects."""
    own: dict[int, list[float]] = {}
    for case in cases:
        own.setdefault(case.subject, []).append(regret(case.worths, chosen[case.name]))
    groups, random = list(own.values()), np.random.default_rng(0)
    medians, tails = [], []
    for _ in range(count):
        values = np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))])
        medians.append(np.median(values))
        tails.append(np.percentile(values, 90))
    return {
        name: [round(float(v), 4) for v in np.percentile(values, [2.5, 97.5])]
        for name, values in (("median", medians), ("p90", tails))
    }
