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
    """Worth of every cell by the pictures of all its draws, or of these alone."""
    return {
        cell_of(label): worth(pooled(parts if draws is None else [parts[i] for i in draws]), told["reference"], opinion)
        for label, parts in told["draws"].items()
    }


def pooled(draws: Sequence[Judged]) -> dict[str, list[float]]:
    """The pictures of several draws as one."""
    return {name: [value for draw in draws for value in draw[name]] for name in draws[0]}


def halves(told: Mapping[str, Any], opinion: str = "similarity") -> tuple[dict[Cell, float], dict[Cell, float]]:
    """Worths of every cell by every second of its draws, and by the others."""
    count = len(next(iter(told["draws"].values())))
    return standing(told, opinion, range(0, count, 2)), standing(told, opinion, range(1, count, 2))


def regret(worths: Mapping[Cell, float], chosen: Cell) -> float:
    """How far the chosen cell's worth lies below the best's, as a share of the best's."""
    best = max(worths.values())
    return 1.0 - worths[chosen] / best if best > 0 else 0.0


def crossed_regret(halves: tuple[Mapping[Cell, float], Mapping[Cell, float]], chosen: Cell) -> float:
    """The regret where the best cell is found by one half of the pictures and compared with the chosen one by the
    other, so that luck does not count as worth: the mean of both ways.
    """
    found = []
    for first, second in (halves, halves[::-1]):
        best = max(first, key=lambda cell: first[cell])
        found.append(1.0 - second[chosen] / second[best] if second[best] > 0 else 0.0)
    return float(np.mean(found))
