"""What few measured cells cost: the product's search over a run's cells, begun at one weight or another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.cases import Case
from benchmarks.choice.levels import interval
from benchmarks.choice.utility import regret
from maquette.evaluation.choice import choose
from maquette.evaluation.search import search

STEPS = (80, 160, 240, 320)  # as the end of a training has them: a quarter of the run between them
CELLS = (4, 5, 6, 8, 12)
WEIGHTS = [weight for weight in plan.WEIGHTS if weight <= 1.0]  # those of which everything is measured
FIRST = (1.0, 0.85, 0.7, 0.5)


def few_cells(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """By the number of cells and the weight at which the search begins: regret against the best of all of the run's
    cells, and its mean difference from the search that begins at 1 with its 95 % interval. Whole models are left out:
    the product tries no weights of theirs.
    """
    adapters = [case for case in cases if case.setting["method"] != "dreambooth"]
    found = []
    for cells in CELLS:
        before: np.ndarray | None = None
        for first in FIRST:
            lost = np.array([_regret(case, cells, first) for case in adapters])
            before = lost if before is None else before
            difference = interval((lost - before).tolist(), [case.subject for case in adapters])
            found.append(
                {
                    "cells": cells, "first": first, "median": float(np.median(lost)),
                    "p90": float(np.percentile(lost, 90)), "mean": float(lost.mean()), "difference": difference,
                }
            )  # fmt: skip
    return found


def _regret(case: Case, cells: int, first: float) -> float:
    chosen = choose(search(STEPS, WEIGHTS, case.at, cells, first=first)).row
    return regret(case.worths, (chosen.step, chosen.weight))


def table(found: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| measured cells | begun at weight | median regret | 90th percentile | mean "
        "| mean difference from 1 (95 % interval) |",
        "|---|---|---|---|---|---|",
    ]
    for one in found:
        mean, low, high = one["difference"]
        told = "–" if one["first"] == FIRST[0] else f"{mean:+.1%} ({low:+.1%} to {high:+.1%})"
        shown = " | ".join(f"{one[name]:.1%}" for name in ("median", "p90", "mean"))
        lines.append(f"| {one['cells']} | {one['first']:g} | {shown} | {told} |")
    return "\n".join(lines)
