"""Several trainings measured on one panel, and what is to be said of how they differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..families.base import BaseModel
from .candidates import Candidate
from .choice import Choice, Row, choose, difference_error, score
from .panel import Panel
from .rule import PANEL_NOISE
from .search import search
from .verdict import Cells

AXES = ("likeness", "identity", "obedience", "neighbours", "neighbour_drift", "edit_retention", "copying", "diversity")


@dataclass(frozen=True)
class Judged:
    """A training's best (step, weight), everything measured, and the latents it drew there, (B, C, h, w)."""

    choice: Choice
    rows: tuple[Row, ...]
    drawn: Tensor


def judged(
    base: BaseModel,
    panel: Panel,
    candidates: Sequence[Candidate],
    weights: Sequence[float],
    cells: int | None,
    on_measured: Callable[[], None] = lambda: None,
) -> Judged:
    """Choose among a training's files on a panel that others are measured on too."""
    measure = Cells(base, candidates, panel, on_measured)
    rows = search(list(measure.files), weights, measure, cells, rule=panel.rule)
    choice = choose(rows, rule=panel.rule)
    return Judged(choice, tuple(rows), measure.drawn[choice.step, choice.weight])


def at(base: BaseModel, panel: Panel, candidate: Candidate, weight: float) -> tuple[Row, Tensor]:
    """One file at one weight, and what it drew: of another base's file nothing is chosen anew."""
    measure = Cells(base, [candidate], panel, lambda: None)
    row = measure(candidate.step, weight)
    return row, measure.drawn[candidate.step, weight]


def ranking(rows: dict[str, Row]) -> list[str]:
    """Sentences: which is best, and which do not differ from it by more than a standard error of the difference, or the
    usual noise of a panel.
    """
    scores = {name: score(row.values) for name, row in rows.items()}
    order = sorted(rows, key=lambda name: -scores[name])
    best = order[0]
    same = [n for n in order[1:] if scores[best] - scores[n] <= _error(rows[best], rows[n])]
    sentences = [f"{best} is best (score {scores[best]:.2f})."]
    if same:
        sentences.append(
            f"{_listed(same)} {'does' if len(same) == 1 else 'do'} not differ from it by more than the noise."
        )
    rest = [name for name in order[1:] if name not in same]
    if rest:
        sentences.append(
            "Behind: " + ", ".join(f"{name} ({scores[name]:.2f}, {why(rows[best], rows[name])})" for name in rest)
        )
        sentences[-1] += "."
    return sentences


def why(best: Row, other: Row) -> str:
    """The axis on which one falls short of the other most."""
    worse = {"neighbour_drift": "changes other things more", "copying": "copies photos more"}
    short = {
        "likeness": "less like the photos", "edit_retention": "prompts steer less", "obedience": "obeys prompts less",
        "neighbours": "draws other things worse", "diversity": "narrower",
    }  # fmt: skip
    falls = {text: best.values[n] - other.values[n] for n, text in short.items() if n in other.values}
    falls |= {text: other.values[n] - best.values[n] for n, text in worse.items() if n in other.values}
    return max(falls, key=lambda text: falls[text])


def base_matters(rows: dict[tuple[str, str], Row]) -> list[str]:
    """Sentences on each pair of bases. rows: (trained on, used on) -> a row, on the panel of the base it is used on."""
    sentences = []
    for trained, used in rows:
        if trained == used:
            continue
        moved, home, own = rows[trained, used], rows[trained, trained], rows[used, used]
        a, b = score(moved.values), score(own.values)
        error = _error(own, moved)
        verdict = "as good as" if abs(a - b) <= error else ("better than" if a > b else "worse than")
        sentences.append(
            f"Trained on {trained} and used on {used} it is {verdict} one trained on {used} itself (score {a:.2f} "
            f"against {b:.2f}, ± {error:.2f}; likeness {moved.values['likeness']:.2f} against "
            f"{own.values['likeness']:.2f}; on its own base it has {score(home.values):.2f})."
        )
    return sentences


def _error(one: Row, other: Row) -> float:
    """By how much the scores of two rows may differ and count as equal."""
    usual = PANEL_NOISE * max(score(one.values), score(other.values))
    return max(difference_error(one, other), usual)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
