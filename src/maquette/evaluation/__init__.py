"""Which checkpoint, at which weight: measures of one (base, LoRA, weight), and the rule that chooses among them.

    panel = build_panel(base, photos, subject="zkw robot")         # once a run: photos, noise, the base's own answers
    values = measure(base, "runs/r/checkpoints/r-000050.safetensors", 0.85, panel)   # {"likeness": 0.71, …}
    choice = choose([Row(50, 0.85, values), …], prefer="balanced")  # choice.step, choice.weight, choice.reason

photos: `Example(pixels, caption, name, held)`: pixels (3, H, W) in [-1, 1], all of one size; held says that training
did not see it. The second argument of `measure` is a file (LoRA, embedding or whole model), an `Adapter`, a state as
`Job.state()` gives it, or None for the base itself. `measure_items` gives, under the same names, the list of values of
which `measure` is the mean: one per photo or drawn picture, the same for every checkpoint of a panel, so that they can
be compared in pairs (`Row.items`, from which the rule takes its standard error).

Measures (1 is what the base does, or the photos among themselves, where nothing else is said):

on the panel     benefit          how much better the photos are predicted than by the base; 0 for the base
                 held_benefit     the same on the photos that were held out
                 gap              held-out photos' relative loss minus the trained ones'
                 drift            change of pictures of the class; unit: what the class word itself does
                 neighbour_drift  the same for other things
                 leak             share of what was learned that answers to the class word alone
                 edit_retention   how far attributes in the prompt still move the prediction
on drawings      likeness         to the photos' subject before the asked background; 0: like any of the class
                 identity         rank among photos and pictures of the class
                 obedience        share of other attributes that fit worse than the one asked for; chance is 1/2
                 obedience_margin by how much, over the base's own pictures
                 neighbours       obedience of prompts for other things, and neighbours_margin
                 copying          share of pictures that copy a photo
                 diversity        effective number of different pictures, over the base's
of people        face_found       share of drawn pictures with a face; face_likeness and same_person of these (faces.py)

gap and held_benefit are there only where photos were held out. `rule.RULE` holds all limits and weights of the choice.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .choice import Choice, Row, choose
    from .example import Example
    from .measures import measure, measure_items
    from .panel import Panel, build_panel
    from .rule import RULE, Rule

__all__ = ["RULE", "Choice", "Example", "Panel", "Row", "Rule", "build_panel", "choose", "measure", "measure_items"]

_HOMES = {
    "RULE": "rule", "Rule": "rule", "Choice": "choice", "Row": "choice", "choose": "choice", "measure": "measures",
    "measure_items": "measures", "Example": "example", "Panel": "panel", "build_panel": "panel",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
