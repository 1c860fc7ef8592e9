"""Rectified flow: the straight line from a picture to noise, and the velocity along it.

Liu et al. arXiv 2209.03003, Lipman et al. arXiv 2210.02747; timesteps and shift as in Esser et al. arXiv 2403.03206.
Notation: x0 clean latent, n noise, sigma in (0, 1]; x_sigma = (1 - sigma) x0 + sigma n; u = dx / dsigma = n - x0.
The network is told t = 1000 sigma, as SD3, Flux and rectified-flow SDXL are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .noise import PredictionType, TimestepSampling

STEPS = 1000  # t of pure noise


@dataclass(frozen=True)
class RectifiedFlow:
    """The noise process of a base that predicts velocity. Timesteps t are float32 (B,) in (0, 1000]; latents are
    (B, C, h, w). shift: how much more time is spent near pure noise (`shifted`); 1 is none.
    """

    shift: float = 1.0
    prediction_type: ClassVar[PredictionType] = "flow"
    t_dtype: ClassVar[torch.dtype] = torch.float32

    def __len__(self) -> int:
        return STEPS

    def to(self, device: torch.device | str) -> RectifiedFlow:
        """Itself: it has no table."""
        return self

    def sample_timesteps(
        self,
        count: int,
        generator: torch.Generator,
        low: int = 0,
        high: int = STEPS,
        sampling: TimestepSampling = "uniform",
    ) -> Tensor:
        """(count,) float32 between low and high: uniform, or the logistic function of normal numbers (arXiv 2403.03206,
        eq. 19), then shifted.
        """
        if sampling == "uniform":
            u = 1.0 - torch.rand(count, generator=generator)  # share of noise, (0, 1]: none is without
        else:
            u = torch.sigmoid(torch.randn(count, generator=generator))
        return (low + (high - low) * shifted(u, self.shift)).clamp(min=STEPS * 1e-5)

    def sigma(self, t: Tensor, like: Tensor) -> Tensor:
        """Share of noise, (B, 1, 1, 1)."""
        return (t.float() / STEPS).reshape(-1, *[1] * (like.ndim - 1))

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """x_sigma = (1 - sigma) x0 + sigma n."""
        sigma = self.sigma(t, x0)
        return (1.0 - sigma) * x0 + sigma * noise

    def target(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The velocity u = n - x0, the same at every t."""
        return noise - x0

    def x0(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The clean latent x_sigma - sigma u."""
        return x_t - self.sigma(t, x_t) * output

    def eps(self, output: Tensor, x_t: Tensor, t: Tensor) -> Tensor:
        """The noise x_sigma + (1 - sigma) u."""
        return x_t + (1.0 - self.sigma(t, x_t)) * output

    def snr(self, t: Tensor) -> Tensor:
        """Signal-to-noise ratio ((1 - sigma) / sigma)^2, (B,); 0 in pure noise."""
        sigma = t.float() / STEPS
        return ((1.0 - sigma) / sigma).square()

    def loss_weight(
        self,
        t: Tensor,
        min_snr_gamma: float | None = None,
        debiased: bool = False,
        scale_v: bool = False,
        v_like: float = 0.0,
    ) -> Tensor:
        """1 for every sample, (B,): a flow is weighed by how often a timestep is drawn. The weights for noise and v
        predictions are refused before (`training.defaults`).
        """
        return torch.ones_like(t)


def shifted(u: Tensor, shift: float) -> Tensor:
    """s u / (1 + (s - 1) u): the same signal-to-noise ratio at s times the side (arXiv 2403.03206, eq. 23)."""
    return shift * u / (1.0 + (shift - 1.0) * u)
