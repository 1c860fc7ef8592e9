"""Which (step, weight) to measure: few and wide at first, more where the score is highest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from .choice import Row, choose
from .rule import RULE, Prefer, Rule

FIRST_SHARE = 0.6  # of the cells, for the steps at one weight; what is left is for the weights
# Most files are better at 0.5 or 0.7 than at 1: with the few cells of a training's end, beginning at 1 costs more
# regret (docs/measurements/checkpoint_choice.md)
FIRST_WEIGHT = 0.7


def search(
    steps: Sequence[int],
    weights: Sequence[float],
    measure: Callable[[int, float], Row],
    cells: int | None = None,
    prefer: Prefer = "balanced",
    rule: Rule = RULE,
    first: float = FIRST_WEIGHT,
) -> list[Row]:
    """Rows in the order of measuring. cells: at most so many; None measures all.

    First the steps, evenly spread and with the last, at the weight nearest to `first`. Then, in turn, around the best
    so far: its other weights, from near to far, its neighbours among the steps, and the last step's weights, since a
    later step at a lower weight is often as good.
    """
    if cells is None:
        return [measure(step, weight) for step in steps for weight in weights]
    cells = min(max(cells, 1), len(steps) * len(weights))
    usual = min(weights, key=lambda weight: abs(weight - first))
    wide = len(steps) if len(steps) <= cells * FIRST_SHARE or len(weights) == 1 else max(2, round(cells * FIRST_SHARE))
    done: dict[tuple[int, float], Row] = {}

    def look(step: int, weight: float) -> None:
        if (step, weight) not in done and len(done) < cells:
            done[step, weight] = measure(step, weight)

    for step in _spread(steps, min(wide, cells)):
        look(step, usual)
    while len(done) < cells:
        before = len(done)
        best = choose(list(done.values()), prefer, rule).best
        for step, weight in _around(steps, weights, best.step, best.weight):
            if (step, weight) not in done:
                look(step, weight)
                break
        if len(done) == before:
            break
    return list(done.values())


def main_weight(rows: Iterable[Row]) -> float:
    """The weight at which most rows were measured; of several the nearest to 1."""
    counts = Counter(row.weight for row in rows)
    return max(counts, key=lambda weight: (counts[weight], -abs(weight - 1.0)))


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """So many of the steps, evenly, the last among them."""
    places = {round((i + 1) * len(steps) / count) - 1 for i in range(count)}
    return [steps[place] for place in sorted(places)]


def _around(steps: Sequence[int], weights: Sequence[float], step: int, weight: float) -> list[tuple[int, float]]:
    """Cells to look at next, the nearest to the best first, alternately in weight and in step."""
    at = list(steps).index(step)
    by_weight = [(step, other) for other in sorted(weights, key=lambda w: abs(w - weight))[1:]]
    by_step = [(steps[i], weight) for i in sorted(range(len(steps)), key=lambda i: abs(i - at))[1:]]
    mixed = [cell for pair in zip(by_weight, by_step, strict=False) for cell in pair]
    rest = [(steps[-1], other) for other in weights]
    return [*by_weight[:2], *mixed, *by_weight, *by_step, *rest, *((s, w) for s in steps for w in weights)]
