"""Other ways to choose a checkpoint, each as the literature or common practice has it, at a fixed weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.choice.cases import USUAL, Case, train_losses
from benchmarks.choice.utility import Cell

DVAR_WINDOW, DVAR_LIMIT = 4, 0.15
Z = 1.96  # of a 95 % confidence interval


def last(case: Case) -> int:
    return case.steps[-1]


def least_train_loss(case: Case) -> int:
    losses = train_losses(case)
    return min(losses, key=lambda step: losses[step])


def least_held_out_loss(case: Case) -> int:
    """Of photos that training did not see, under fixed noise."""
    return max(case.steps, key=lambda step: case.at(step).values["held_benefit"])


def dvar(case: Case) -> int:
    """DVAR (arXiv 2302.04841): the first checkpoint where the variance of the last few losses on a fixed batch has
    fallen below a share of the variance of all so far. Their batch is asked at every step, ours at every checkpoint.
    """
    losses = [1.0, *(1.0 - case.at(step).values["benefit"] for step in case.steps)]
    return case.steps[dvar_stop(losses[1:], losses[:1])]


def dvar_stop(losses: Sequence[float], before: Sequence[float] = (), window: int = DVAR_WINDOW) -> int:
    """The place in `losses` where DVAR stops, the last where it never does."""
    seen = list(before)
    for i, loss in enumerate(losses):
        seen.append(loss)
        if len(seen) > window and np.var(seen[-window:]) < DVAR_LIMIT * np.var(seen):
            return i
    return len(losses) - 1


def tower_alone(case: Case) -> int:
    """The most like the photos, by an image encoder."""
    return max(case.steps, key=lambda step: float(np.mean(case.tower[step, 1.0])))


def tower_within_error(case: Case) -> int:
    """The earliest not surely below the best: within the 95 % interval of the paired difference in likeness."""
    return earliest_within_error({step: case.tower[step, 1.0] for step in case.steps})


def earliest_within_error(values: Mapping[int, Sequence[float]], z: float = Z) -> int:
    best = max(values, key=lambda step: float(np.mean(values[step])))
    for step in sorted(values):
        difference = np.asarray(values[best]) - np.asarray(values[step])
        error = float(difference.std(ddof=1)) / np.sqrt(len(difference)) if len(difference) > 1 else 0.0
        if difference.mean() <= z * error:
            return step
    return best


STEPS: dict[str, Callable[[Case], int]] = {
    "last step": last,
    "least train loss": least_train_loss,
    "least held-out loss": least_held_out_loss,
    "DVAR's stop": dvar,
    "pocket's tower alone": tower_alone,
    "tower, earliest within its interval": tower_within_error,
}


def fixed_step(fitted: Sequence[Case], weight: float) -> int:
    """The step whose mean worth over the cases, each relative to its best, is the highest."""
    steps = fitted[0].steps

    def mean(step: int) -> float:
        return float(np.mean([case.worths[step, weight] / max(case.worths.values()) for case in fitted]))

    return max(steps, key=mean)


def fixed_cell(fitted: Sequence[Case]) -> Cell:
    """The step and weight whose mean worth over the cases, each relative to its best, is the highest: no look at any
    picture, and a weight that was found by looking at others' results.
    """
    cells = [(row.step, row.weight) for row in fitted[0].rows]
    return max(cells, key=lambda cell: float(np.mean([c.worths[cell] / max(c.worths.values()) for c in fitted])))


def rivals(fitted: Sequence[Case]) -> dict[str, Callable[[Case], Cell]]:
    """Every rival at weight 1 and at 0.8. fitted: the cases from which the fixed number of steps is taken."""
    found: dict[str, Callable[[Case], Cell]] = {}
    for weight in (1.0, USUAL):
        for name, step_of in STEPS.items():
            found[f"{name}, weight {weight:g}"] = lambda case, step_of=step_of, weight=weight: (step_of(case), weight)  # type: ignore[misc]
        step = fixed_step(fitted, weight)
        found[f"fixed number of steps ({step}), weight {weight:g}"] = lambda case, cell=(step, weight): cell  # type: ignore[misc]
    cell = fixed_cell(fitted)
    found[f"one step and weight for all ({cell[0]}, {cell[1]:g})"] = lambda case: cell
    found["pocket's tower alone, any weight"] = lambda case: max(
        case.tower, key=lambda cell: float(np.mean(case.tower[cell]))
    )
    found["best step at weight 1, if one knew it"] = lambda case: max(
        ((step, 1.0) for step in case.steps), key=lambda cell: case.worths[cell]
    )
    return found
