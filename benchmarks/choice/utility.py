"""The worth of a checkpoint at a weight, from what was judged: one number, and how sure it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Cell = tuple[int, float]  # step, weight
Judged = Mapping[str, Sequence[float]]
Draws = dict[str, list[dict[str, list[float]]]]


def cell_of(label: str) -> Cell:
    """ "320@0.85" -> (320, 0.85)."""
    step, weight = label.split("@")
    return int(step), float(weight)


def worth(draw: Judged, reference: Mapping[str, float], opinion: str = "similarity") -> float:
    """Subject x obedience x what is kept, each 0 to about 1.

    Subject: similarity to fresh scenes, 0 for the base's pictures of the class and 1 for fresh scenes among themselves;
    by the second opinion ("probe") the probability that the picture shows the subject. Obedience: mean of the share of
    asked backgrounds and of the asked style's probability over the base's. Kept: mean of the probabilities of class and
    neighbours over the base's. What passes the base counts as 1.
    """
    mean = {name: float(np.mean(values)) for name, values in draw.items()}
    if opinion == "similarity":
        low = reference["base_similarity"]
        subject = (mean["similarity"] - low) / max(reference["ceiling"] - low, 1e-3)
    else:
        subject = mean[opinion]
    shares = {name: min(1.0, mean[name] / max(reference[f"base_{name}"], 1e-3)) for name in ("style", *KEPT)}
    obedience = (mean["background"] + shares["style"]) / 2
    return max(subject, 0.0) * obedience * (shares["class"] + shares["neighbours"]) / 2


KEPT = ("class", "neighbours")


def standing(
    told: Mapping[str, Any], opinion: str = "similarity", draws: Sequence[int] | None = None
) -> dict[Cell, float]:
    """Worth of every cell, the mean over its draws, made comparable: draws differ in prompts and noise, so that each is
    taken relative to the cells that have all of them. draws: only these, and only cells that have one of them.
    """
    found = {
        cell_of(label): {
            i: worth(d, told["reference"], opinion) for i, d in enumerate(parts) if draws is None or i in draws
        }
        for label, parts in told["draws"].items()
    }
    found = {cell: values for cell, values in found.items() if values}
    most = max(len(values) for values in found.values())
    full = [values for values in found.values() if len(values) == most]
    level = {i: float(np.mean([values[i] for values in full])) for i in full[0]}
    middle = float(np.mean(list(level.values())))
    return {
        cell: middle + float(np.mean([value - level[i] for i, value in values.items() if i in level]))
        for cell, values in found.items()
        if any(i in level for i in values)
    }


STEP_WIDTH, WEIGHT_WIDTH = 0.5, 0.12  # of log(step) and of the weight, by which one half of the pictures best tells
# the worths that the other half gives (`results.smoothing`)


def smoothed(
    worths: Mapping[Cell, float], step_width: float = STEP_WIDTH, weight_width: float = WEIGHT_WIDTH
) -> dict[Cell, float]:
    """Each cell's worth as the mean of its neighbourhood, weighted by a Gaussian of log(step) and weight (Nadaraya and
    Watson, 1964). A cell is judged by sixteen pictures: the best of sixty such means is lucky, its neighbours are not.
    """
    cells = list(worths)
    steps = np.log([step for step, _ in cells]) / step_width
    weights = np.array([weight for _, weight in cells]) / weight_width
    near = np.exp(-((steps[:, None] - steps) ** 2 + (weights[:, None] - weights) ** 2) / 2)
    values = near @ np.array([worths[cell] for cell in cells]) / near.sum(1)
    return dict(zip(cells, map(float, values), strict=True))


def halves(told: Mapping[str, Any], opinion: str = "similarity") -> tuple[dict[Cell, float], dict[Cell, float]]:
    """Worths of every cell by every second picture of its first draw, and by the others."""
    found: list[dict[Cell, float]] = []
    for first in (0, 1):
        parts = {label: {n: v[first::2] for n, v in draws[0].items()} for label, draws in told["draws"].items()}
        found.append({cell_of(label): worth(part, told["reference"], opinion) for label, part in parts.items()})
    return found[0], found[1]


def regret(worths: Mapping[Cell, float], chosen: Cell) -> float:
    """How far the chosen cell's worth lies below the best's, as a share of the best's."""
    best = max(worths.values())
    return 1.0 - worths[chosen] / best if best > 0 else 0.0


def two_draws(
    told: Mapping[str, Any], opinion: str = "similarity"
) -> tuple[dict[Cell, float], dict[Cell, float]] | None:
    """Worths by the first draw alone and by the second alone; None before there is a second."""
    if not any(len(parts) > 1 for parts in told["draws"].values()):
        return None
    return standing(told, opinion, [0]), standing(told, opinion, [1])


def crossed_regret(draws: tuple[Mapping[Cell, float], Mapping[Cell, float]], chosen: Cell) -> float | None:
    """The regret where the best cell is found in one draw and compared with the chosen one in the other, so that luck
    does not count as worth: the mean of both ways where the chosen one has both draws. None where it has neither.
    """
    found = []
    for first, second in (draws, draws[::-1]):
        both = [cell for cell in first if cell in second]
        if chosen not in second or not both:
            continue
        best = max(both, key=lambda cell: first[cell])
        found.append(1.0 - second[chosen] / second[best] if second[best] > 0 else 0.0)
    return float(np.mean(found)) if found else None
