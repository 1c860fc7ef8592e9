"""When a training may end by itself: never at the first bad checkpoint, since files get better again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .choice import Row, faults
from .reasons import phrase
from .rule import RULE, Rule

FALLEN = 3  # checkpoints in a row that are worse than the best before them
CLEAR = 1.5  # how far a limit is passed by a file that is clearly overtrained
BENEFIT = "held_benefit"


def ending(rows: Sequence[Row], rule: Rule = RULE) -> str | None:
    """A sentence why training should end after the last of these checkpoints, else None. rows: in order of steps.

    It ends where the last FALLEN checkpoints all predict the held-out photos worse than the best one before them, by
    more than the standard error of the photos' differences, all pass a limit, and the last one passes it CLEAR times.
    """
    before, last = rows[:-FALLEN], rows[-FALLEN:]
    if not before or any(BENEFIT not in row.values for row in rows):
        return None
    best = max(before, key=lambda row: row.values[BENEFIT])
    if any(best.values[BENEFIT] - row.values[BENEFIT] <= _error(best, row) for row in last):
        return None
    wrong = [faults(row.values, rule) for row in last]
    if not all(wrong) or wrong[-1][0].excess <= CLEAR:
        return None
    return (
        f"Training ended by itself after step {rows[-1].step}: held-out photos have been predicted worse for {FALLEN} "
        f"checkpoints, best at step {best.step}, and {phrase(wrong[-1][0])}."
    )


def _error(one: Row, other: Row) -> float:
    """Standard error of the difference, over the photos that both were asked for."""
    a, b = (np.asarray(row.items.get(BENEFIT, ()), dtype=float) for row in (one, other))
    if len(a) != len(b) or len(a) < 2:
        return 0.0
    return float((a - b).std(ddof=1) / len(a) ** 0.5)
