"""The numbers of the choice: what each measure counts, and from where on a file is overtrained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
# By what share of the best score do scores of one panel differ that another panel would turn round
# (docs/measurements/panel.md)
PANEL_NOISE = 0.04

# Fitted by benchmarks/checkpoint_choice.py to what checkpoints of half of its subjects were worth, and tried on the
# other half, with likeness by the nearest photo. When likeness became what it is now its power was raised, and all were
# scaled to the sum they had: between 0.7 and 1.3 nothing differs by more than the noise. The limits are practitioners',
# not fitted: they say why a file is overtrained.
RULE = Rule(
    terms={
        "likeness": Term(1),
        "benefit": Term(0.66),
        "obedience": Term(0.49),
        "edit_retention": Term(0.46),
        "neighbours_margin": Term(0.32),
        "diversity": Term(0.19),
        "gap": Term(0.19, scale=0.7),
        "drift": Term(0.15, scale=0.7),
        "obedience_margin": Term(0.07),
        "held_benefit": Term(0.05),
    },
    least={"edit_retention": 0.5, "diversity": 0.3},
    most={"gap": 0.4, "neighbour_drift": 2.0, "copying": 0.3},
    dial={
        "balanced": {},
        "likeness": {"likeness": 2.0, "benefit": 1.5},
        "flexible": {"neighbours_margin": 2.0, "drift": 2.0, "edit_retention": 2.0},
    },
)
# Of a style: pictures in it ought to be alike, and that the things asked for are seen in them is asked directly.
STYLE_RULE = replace(RULE, least={"obedience": 0.75})
