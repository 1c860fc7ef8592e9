"""Denoisers whose answer and whose path are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[float, float], Tensor]
SPREAD = 0.3  # deviation of each peak of `two_peaks`


def two_peaks(x: Tensor, sigma: float) -> Tensor:
    """x0 of data that lie around -1 and 1, each element by itself."""
    variance = SPREAD**2 + sigma**2
    return (SPREAD**2 * x + sigma**2 * torch.tanh(x / variance)) / variance


def gaussian(x: Tensor, sigma: float, spread: float = 0.8) -> Tensor:
    """x0 of data from a normal distribution around 0."""
    return x * (spread**2 / (spread**2 + sigma**2))


def gaussian_path(x: Tensor, sigma: float, to: float, spread: float = 0.8) -> Tensor:
    """Where the probability flow ODE of `gaussian` brings x from one level to another."""
    return x * math.sqrt((spread**2 + to**2) / (spread**2 + sigma**2))


def beginning(sigma: float) -> Tensor:
    """(2, 1, 2, 3) float64, of about the size of noise at a level."""
    return torch.cos(torch.arange(12, dtype=torch.float64) * 1.3 + 0.2).reshape(2, 1, 2, 3) * sigma


def fixed_noise() -> Noise:
    """A source of numbers that are not random, other ones at each call, which also depend on the levels."""
    calls = 0

    def noise(sigma: float, sigma_next: float) -> Tensor:
        nonlocal calls
        calls += 1
        places = torch.arange(12, dtype=torch.float64)
        return torch.sin(places * 2.1 + 1.7 * calls + 0.3 * sigma + 0.1 * sigma_next).reshape(2, 1, 2, 3)

    return noise
