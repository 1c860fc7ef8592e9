"""The noise floor: how far scores differ that should be equal, between seeds of the panel and between twin runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .choice import Row, score
from .rule import RULE, Prefer, Rule


@dataclass(frozen=True)
class Noise:
    """source: where it was seen. difference: of the scores of two files that are equally good, one standard deviation.
    measures: of each measure's value, likewise.
    """

    source: str
    difference: float
    measures: dict[str, float] = field(default_factory=dict)

    def sentence(self, floor: float = 0.0) -> str:
        """floor: by how much scores may differ all the same, where that is more."""
        less = f", less than the usual noise of a panel, {floor:.3f}" if floor > self.difference else ""
        return (
            f"Scores of files that are equally good differ by {self.difference:.3f} between {self.source}{less}; what "
            f"differs by no more{' than that' if less else ''} counts as equal."
        )


def between_seeds(panels: Sequence[Sequence[Row]], prefer: Prefer = "balanced", rule: Rule = RULE) -> Noise:
    """From the same cells measured on two panels or more. panels: of each the rows, in one order.

    What all cells of a panel share decides nothing and is taken away; of what is left the standard deviation, divided
    by the root of the number of panels, since their mean is what is compared, and times that of 2 for a difference.
    """
    of = len(panels)
    spread = {
        name: _interaction(np.array([[row.values[name] for row in rows] for rows in panels])) / of**0.5
        for name in panels[0][0].values
        if all(name in row.values for rows in panels for row in rows)
    }
    scores = np.array([[score(row.values, prefer, rule) for row in rows] for rows in panels])
    return Noise(f"{of} panels", 2**0.5 * _interaction(scores) / of**0.5, spread)


def _interaction(values: np.ndarray) -> float:
    """Standard deviation of (panels, cells) beyond the means of both."""
    panels, cells = values.shape
    if panels < 2 or cells < 2:
        return float(values.std(ddof=1)) if values.size > 1 else 0.0
    rest = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    return float((np.square(rest).sum() / ((panels - 1) * (cells - 1))) ** 0.5)


def of_twins(run: Sequence[Row], twin: Sequence[Row], prefer: Prefer = "balanced", rule: Rule = RULE) -> Noise | None:
    """From two runs of the same settings, at the cells that both have; None without any. A cell's noise is the root of
    half the mean square of the runs' differences.
    """
    there = {(row.step, row.weight): row for row in twin}
    pairs = [(row, there[row.step, row.weight]) for row in run if (row.step, row.weight) in there]
    if not pairs:
        return None
    scores = np.array([score(a.values, prefer, rule) - score(b.values, prefer, rule) for a, b in pairs])
    spread = {
        name: float(np.sqrt(np.square([a.values[name] - b.values[name] for a, b in pairs]).mean() / 2))
        for name in pairs[0][0].values
        if all(name in row.values for pair in pairs for row in pair)
    }
    return Noise("twin runs", float(np.sqrt(np.square(scores).mean())), spread)


def joined(panels: Sequence[Sequence[Row]]) -> list[Row]:
    """One row for each cell, from the items of all panels."""
    return [
        Row.of(
            rows[0].step,
            rows[0].weight,
            {name: [v for row in rows for v in row.items[name]] for name in rows[0].items},
        )
        for rows in zip(*panels, strict=True)
    ]
