"""Exponential moving average (EMA) of the trained weights."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class EMA:
    """EMA of parameters: a <- d a + (1 - d) p, where the decay d rises as (1 + n) / (10 + n) with the steps n at first.

    values: the averages, in the order of the parameters. count: the updates so far.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.count = 0
        self.values = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters after a step."""
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(self.values, [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averages and parameters. A second call restores both."""
        for p, value in zip(self._parameters, self.values, strict=True):
            kept = p.detach().clone()
            p.copy_(value)
            value.copy_(kept)
