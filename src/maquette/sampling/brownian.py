"""A Brownian motion for each picture, the same whatever the steps and the batch: the noise of SDE samplers.

The tree of halves is that of torchsde's BrownianTree (Li et al. 2001.01328, section 4, with splittable seeds), number
for number, so that A1111's pictures of a seed are drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

_DIGITS = 6  # levels nearer than 1e-6 are one
_POOL = 24  # words of entropy, as torchsde's

Randn = Callable[[int, tuple[int, ...]], Tensor]
"""(seed, shape) -> float32 normal numbers."""


def cpu_randn(seed: int, shape: tuple[int, ...]) -> Tensor:
    """PyTorch's numbers on a CPU."""
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


class BrownianMotion:
    """W on [start, end] with W(start) = 0: `at(t)` always gives the same for a seed, whatever was asked before.

    W(end) is drawn; then each half way from what lies at both ends (the Brownian bridge), down to t.
    """

    def __init__(self, start: float, end: float, shape: tuple[int, ...], seed: int, randn: Randn = cpu_randn) -> None:
        self.start, self.end = round(start, _DIGITS), round(end, _DIGITS)
        self.seed, self.shape, self.randn = seed, shape, randn
        state = np.random.SeedSequence(seed, pool_size=_POOL).generate_state(3)
        self.whole = randn(int(state[0]), shape) * math.sqrt(end - start)
        self._known: dict[float, Tensor] = {}

    def at(self, t: float) -> Tensor:
        """W(t), of the shape; t outside of [start, end] counts as the nearer end."""
        t = round(min(max(t, self.start), self.end), _DIGITS)
        if t not in self._known:
            self._known[t] = self._descend(t)
        return self._known[t]

    def _descend(self, t: float) -> Tensor:
        low, high, path, depth = self.start, self.end, 0, 0
        before, within = torch.zeros(self.shape), self.whole  # W(low), W(high) - W(low)
        while low < t < high:
            middle = round(0.5 * (low + high), _DIGITS)
            length, left = high - low, middle - low
            key = np.random.SeedSequence(self.seed, spawn_key=(path, depth), pool_size=_POOL)
            noise = self.randn(int(key.generate_state(4)[0]), self.shape)
            change = left / length * within + math.sqrt(left * (high - middle) / length) * noise
            if t < middle:
                high, within, path = middle, change, 2 * path
            else:
                low, within, path = middle, within - change, 2 * path + 1
                before = before + change
            depth += 1
        return before if t <= low else before + within


class BrownianNoise:
    """Noise of deviation 1 for the way between two levels, (B, C, h, w): each row from the motion of its own seed."""

    def __init__(
        self, sigmas: Sequence[float], shape: tuple[int, ...], seeds: Sequence[int], device: torch.device, randn: Randn
    ) -> None:
        """sigmas: all levels of the drawing, also of those steps that image to image leaves out; shape: (C, h, w)."""
        low, high = min(sigma for sigma in sigmas if sigma > 0), max(sigmas)
        self.motions = [BrownianMotion(_single(low), _single(high), shape, seed, randn) for seed in seeds]
        self.device = device

    def __call__(self, sigma: float, sigma_next: float) -> Tensor:
        here, there = _single(sigma), _single(sigma_next)
        way = torch.stack([motion.at(there) - motion.at(here) for motion in self.motions])
        return (way / math.sqrt(abs(here - there))).to(self.device)


def _single(value: float) -> float:
    """The nearest float32: k-diffusion's levels are such."""
    return float(np.float32(value))
