"""The numbers of the choice: what each measure counts, and from where on a file is overtrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Prefer = Literal["likeness", "balanced", "flexible"]


@dataclass(frozen=True)
class Term:
    """A measure in the score: goodness ** power. Where more is better, goodness is the measure, from `LEAST` to 1.5;
    where less is, 1 / (1 + measure / scale), for a negative measure 1.
    """

    power: float
    scale: float | None = None  # None: more is better


@dataclass(frozen=True)
class Rule:
    """score = product of the terms. limits: a measure's worst value that is not overtrained. dial: by what the powers
    are multiplied for a preference.
    """

    terms: Mapping[str, Term]
    least: Mapping[str, float]  # measures that must not fall below
    most: Mapping[str, float]  # measures that must not rise above
    dial: Mapping[Prefer, Mapping[str, float]]


LEAST = 0.02

# Provisional: the powers that followed the truth best in the first two runs of benchmarks/checkpoint_choice.py, which
# fits them on half of the subjects once they are trained (docs/overtraining.md).
RULE = Rule(
    terms={"likeness": Term(1.0), "neighbour_drift": Term(1.0, scale=0.7), "edit_retention": Term(2.0)},
    least={"edit_retention": 0.5, "diversity": 0.3},
    most={"gap": 0.4, "neighbour_drift": 2.0, "copying": 0.3},
    dial={
        "balanced": {},
        "likeness": {"likeness": 2.0},
        "flexible": {"neighbour_drift": 2.0, "edit_retention": 2.0},
    },
)
