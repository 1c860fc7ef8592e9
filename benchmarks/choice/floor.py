"""How low a regret can be told: what the truth's own noise charges a choice that is never wrong, and an oracle.

A world in which the truth is known: a run's smoothed worths are taken as true, and what another draw of its pictures
would have said is drawn again and again from the pictures themselves (the same ones for every cell, as cells share
their prompts and seeds; n - 1 of n, so that the variance of a mean is right: Rao and Wu 1988).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.cases import Case
from benchmarks.choice.truth import label
from benchmarks.choice.utility import KEPT, STEP_WIDTH, WEIGHT_WIDTH, Cell, regret, smoothed

TIMES = (1, 2, 4, 8, 16)  # as many pictures as one draw has
PICTURES = 16  # of a draw
RESAMPLES = 200
BARS = {"median": 0.05, "p90": 0.15}
CELLS: list[Cell] = [(step, weight) for step in plan.CHECKPOINTS for weight in plan.WEIGHTS]


def kernel() -> np.ndarray:
    """(cells, cells), rows summing to 1: `utility.smoothed` of all cells as a matrix."""
    steps = np.log([step for step, _ in CELLS]) / STEP_WIDTH
    weights = np.array([weight for _, weight in CELLS]) / WEIGHT_WIDTH
    near = np.exp(-((steps[:, None] - steps) ** 2 + (weights[:, None] - weights) ** 2) / 2)
    return np.asarray(near / near.sum(1, keepdims=True))


def drawn_again(case: Case, times: int, count: int, seed: int) -> np.ndarray:
    """(count, cells) worths as other draws of `times` as many pictures would give them, and last the draw's own."""
    first = [case.truth["draws"][label(*cell)][0] for cell in CELLS]
    parts = {name: np.array([draw[name] for draw in first]) for name in first[0]}  # (cells, pictures)
    own, styled = parts["similarity"].shape[1], parts["style"].shape[1]
    random = np.random.default_rng(seed)
    groups = {"own": own, "styled": styled, **{name: parts[name].shape[1] for name in KEPT}}
    picked = {n: random.integers(0, size, (count, max(times * (size - 1), 1))) for n, size in groups.items()}
    places = {
        "similarity": picked["own"],
        "background": np.concatenate([picked["own"], own + picked["styled"]], 1),
        "style": picked["styled"],
        **{name: picked[name] for name in KEPT},
    }
    again = {name: parts[name][:, place].mean(2).T for name, place in places.items()}
    whole = {name: parts[name].mean(1)[None] for name in places}
    return np.concatenate([_worth(again, case.truth["reference"]), _worth(whole, case.truth["reference"])])


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
    oracle: of the best cell of one draw, as another charges it. truly: of the same, by the truth.
    """
    worths = drawn_again(case, times, 2 * RESAMPLES, number)
    smooth = kernel()
    true = np.maximum(smooth @ np.array([case.raw[cell] for cell in CELLS]), 0.0)
    seen = true + (worths[:-1] - worths[-1]) @ smooth.T
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
        pooled = {name: np.concatenate([one[name] for one in own]) for name in own[0]}
        found[str(times * PICTURES)] = {name: _two(values) for name, values in pooled.items()}
    return found


def _two(values: np.ndarray) -> dict[str, float]:
    return {"median": round(float(np.median(values)), 4), "p90": round(float(np.percentile(values, 90)), 4)}


def beside_a_half(cases: Sequence[Case], chosen: dict[str, Cell], count: int = 2000) -> dict[str, Any]:
    """The rule beside somebody who sees half of the first draw's pictures of every cell and takes the best smoothed
    worth there; both by the other half, both ways round. rule, oracle: regret. more: how much higher the rule's is.
    worth: the rule's mean worth over the oracle's. With 95 % intervals by a bootstrap over subjects.
    """
    rows: dict[int, list[tuple[float, ...]]] = {}
    for case in cases:
        one, other = ({cell: half[cell] for cell in CELLS} for half in case.halves)
        for seen, judge in ((one, other), (other, one)):
            smooth, by = smoothed(seen), smoothed(judge)
            best, own = max(smooth, key=lambda cell: smooth[cell]), chosen[case.name]
            values = (regret(by, own), regret(by, best), judge[own], judge[best])
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
