"""A run with everything known of it: what was measured, what is true, and how its training went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.choice import plan
from benchmarks.choice.candidates import finished
from benchmarks.choice.truth import whole
from benchmarks.choice.utility import Cell, cell_of, halves, standing
from maquette.evaluation.choice import Row


@dataclass(frozen=True)
class Case:
    """setting: of the plan, as run.json tells it. truth: what truth.judge_run keeps. rows: cells of which all is
    measured. partly: those of which some measures are missing. tower: the image tower's likenesses of both. losses: of
    every training step.
    """

    setting: dict[str, Any]
    truth: dict[str, Any]
    rows: tuple[Row, ...]
    partly: tuple[Row, ...]
    tower: dict[Cell, Sequence[float]]
    losses: Sequence[float]

    @property
    def name(self) -> str:
        return str(self.setting["name"])

    @property
    def subject(self) -> int:
        return int(self.setting["subject"])

    @cached_property
    def worths(self) -> dict[Cell, float]:
        """Of every judged cell; and at weight 0.8 between its neighbours."""
        return with_usual_weight(standing(self.truth))

    @cached_property
    def second(self) -> dict[Cell, float]:
        """The worths by the subject's own probe."""
        return with_usual_weight(standing(self.truth, "probe"))

    @cached_property
    def halves(self) -> tuple[dict[Cell, float], dict[Cell, float]]:
        """Worths by either half of the pictures."""
        one, other = halves(self.truth)
        return with_usual_weight(one), with_usual_weight(other)

    @cached_property
    def steps(self) -> list[int]:
        return sorted({row.step for row in self.rows})

    def at(self, step: int, weight: float = 1.0) -> Row:
        return next(row for row in (*self.rows, *self.partly) if (row.step, row.weight) == (step, weight))


UNRULED = ("tower", "photo_errors")  # what is measured beside what the rule knows
USUAL = 0.8  # the weight at which files are often used, between two of those that are judged


def with_usual_weight(worths: dict[Cell, float]) -> dict[Cell, float]:
    """Add weight 0.8, on the straight line between its neighbours, to each step that has both."""
    low, high = max(w for w in plan.WEIGHTS if w < USUAL), min(w for w in plan.WEIGHTS if w > USUAL)
    share = (USUAL - low) / (high - low)
    between = {
        (step, USUAL): (1 - share) * worths[step, low] + share * worths[step, high]
        for step in {step for step, _ in worths}
        if (step, low) in worths and (step, high) in worths
    }
    return worths | between


def cases(work: Path, subjects: int) -> list[Case]:
    """The runs of which all cells are judged once and measured."""
    found = []
    for run in finished(work, subjects):
        files = [work / kind / f"{run.name}.json" for kind in ("truth", "measures")]
        if not all(file.exists() for file in files):
            continue
        truth, measures = (json.loads(file.read_text()) for file in files)
        if not whole(run, truth) or measures["key"] != run.key or not measures.get("done"):
            continue
        found.append(case_of(run.told, truth, measures))
    return found


def case_of(told: dict[str, Any], truth: dict[str, Any], measures: dict[str, Any]) -> Case:
    rows, tower = [], {}
    for label, items in measures["cells"].items():
        step, weight = cell_of(label)
        tower[step, weight] = items["tower"]
        rows.append(Row.of(step, weight, {name: values for name, values in items.items() if name not in UNRULED}))
    rows.sort(key=lambda row: (row.step, row.weight))
    losses = told["losses"]
    setting = {k: v for k, v in told.items() if k not in ("losses", "subject_told")}
    setting["subject_name"] = told["subject_told"]["name"]
    whole = max(len(row.values) for row in rows)
    complete, partly = ([row for row in rows if (len(row.values) == whole) is side] for side in (True, False))
    return Case(setting, truth, tuple(complete), tuple(partly), tower, losses)


def train_losses(case: Case, window: int = plan.SAVED) -> dict[int, float]:
    """Of each checkpoint the mean loss of the last steps before it, as trainers show it."""
    return {step: float(np.mean(case.losses[max(0, step - window) : step])) for step in case.steps}
