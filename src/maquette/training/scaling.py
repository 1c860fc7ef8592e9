"""The loss scaled up while float16 is computed with, so that small gradients do not vanish (arXiv 1710.03740, 3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

START, SMALLEST, LARGEST = 2.0**16, 1.0, 2.0**24
PATIENCE = 2000  # steps without overflow after which the factor is doubled


class LossScale:
    """The factor of the loss. Inactive it is 1 and stays so."""

    def __init__(self, active: bool) -> None:
        self.active = active
        self.value = START if active else 1.0
        self.good = 0  # steps since it last changed

    @torch.no_grad()
    def undo(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the factor, in place."""
        if self.active:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1.0 / self.value)

    def lower(self, loss: float) -> bool:
        """After gradients that are not finite: halve the factor. False when that cannot be the reason or the cure."""
        if not self.active or self.value <= SMALLEST or not math.isfinite(loss):
            return False
        self.value, self.good = self.value / 2, 0
        return True

    def keep(self) -> None:
        """After a step that went well."""
        self.good += 1
        if self.active and self.good >= PATIENCE:
            self.value, self.good = min(self.value * 2, LARGEST), 0

    def state(self) -> dict[str, Any]:
        """What goes into a run's state."""
        return {"scale": self.value, "good": self.good}

    def load_state(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; an empty one leaves the beginning."""
        if self.active and state:
            self.value, self.good = float(state["scale"]), int(state["good"])
