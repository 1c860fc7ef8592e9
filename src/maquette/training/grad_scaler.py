"""The loss scaled up while float16 is computed with, so that small gradients do not vanish (arXiv 1710.03740, 3.2)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

INIT_SCALE, SMALLEST, LARGEST = 2.0**16, 1.0, 2.0**24
GROWTH_INTERVAL = 2000  # steps without overflow after which the scale is doubled


class GradScaler:
    """Scales the loss, unscales the gradients and adapts the scale, as torch.amp.GradScaler does, but with a state that
    resumes to the bit. Inactive, the scale is 1 and stays so.
    """

    def __init__(self, active: bool, init_scale: float = INIT_SCALE, growth_interval: int = GROWTH_INTERVAL) -> None:
        self.active = active
        self.scale = init_scale if active else 1.0
        self._growth_interval = growth_interval
        self.good = 0  # steps since it last changed

    @torch.no_grad()
    def unscale_(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale, in place."""
        if self.active:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], 1.0 / self.scale)

    def backoff(self, loss: float) -> bool:
        """Halve the scale after gradients that are not finite. Returns False where overflow cannot be the reason."""
        if not self.active or self.scale <= SMALLEST or not math.isfinite(loss):
            return False
        self.scale, self.good = self.scale / 2, 0
        return True

    def update(self) -> None:
        """Count a step without overflow; double the scale after `growth_interval` of them."""
        self.good += 1
        if self.active and self.good >= self._growth_interval:
            self.scale, self.good = min(self.scale * 2, LARGEST), 0

    def state(self) -> dict[str, Any]:
        """Return what the state of a run keeps."""
        return {"scale": self.scale, "good": self.good}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned; an empty one changes nothing."""
        if self.active and state:
            self.scale, self.good = float(state["scale"]), int(state["good"])
