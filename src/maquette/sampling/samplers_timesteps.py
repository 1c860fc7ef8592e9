"""Samplers that A1111 steps through a base's timesteps: DDIM, DDIM CFG++, PLMS, UniPC (see `samplers_ode`).

Their papers write x_t = sqrt(abar_t) x0 + sqrt(1 - abar_t) n; with x = x_t / sqrt(abar_t) they are the same few lines
as the others. `sigmas` ends at the lowest level and not at 0, and the result is brought back to x_t's scale afterwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, Protocol

import numpy as np
from torch import Tensor

from .samplers_ode import Denoise, Noise, OnStep, derivative, no_noise, no_report
from .samplers_sde import ancestral_step


class GuidedDenoise(Denoise, Protocol):
    """A denoiser that can also say what the negative prompt alone makes of x."""

    def both(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        """(x0 guided, x0 of the negative prompt)."""


def sample_ddim(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise = no_noise,
    eta: float = 0.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """DDIM: Song et al. 2010.02502, equation 12; sigma_t of its equation 16 is eta times DDPM's."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x0 + derivative(x, sigma, x0) * sigma_down
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
        on_step(i, x0)
    return x


def sample_ddim_cfgpp(
    denoiser: GuidedDenoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise = no_noise,
    eta: float = 0.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """CFG++: Chung et al. 2406.08070, algorithm 2: noise is put back as the negative prompt sees it, unguided."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0, x0_negative = denoiser.both(x, sigma)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x0 + derivative(x, sigma, x0_negative) * sigma_down
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * sigma_up
        on_step(i, x0)
    return x


_ADAMS_BASHFORTH = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def sample_plms(denoiser: Denoise, x: Tensor, sigmas: Sequence[float], *, on_step: OnStep = no_report) -> Tensor:
    """PLMS: Liu et al. 2202.09778, section 3.3; the first step is improved Euler, two calls, as latent-diffusion's."""
    ds: list[Tensor] = []
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        ds = [derivative(x, sigma, x0), *ds[:3]]
        if i == 0 and sigma_next > 0:
            x_2 = x + ds[0] * (sigma_next - sigma)
            d = (ds[0] + derivative(x_2, sigma_next, denoiser(x_2, sigma_next))) / 2
        else:
            d = sum((weight * past for weight, past in zip(_ADAMS_BASHFORTH[len(ds) - 1], ds, strict=True)), 0 * x)
        x = x + d * (sigma_next - sigma)
        on_step(i, x0)
    return x


def sample_unipc(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    order: int = 3,
    variant: Literal["bh1", "bh2"] = "bh1",
    on_step: OnStep = no_report,
) -> Tensor:
    """UniPC: Zhao et al. 2302.04867, UniP and UniC of section 3, multistep and for x0, of lower order at both ends.

    The denoiser's answer at the predicted x corrects it and is not asked again. sigmas: none may be 0.
    """
    last = len(sigmas) - 1
    known = [(sigmas[0], denoiser(x, sigmas[0]))]  # the newest first
    for i in range(1, last + 1):
        p = min(order, i, last + 1 - i)
        base, h = _first_order(x, known[0], sigmas[i])  # (B, C, h, w), UniP-1
        differences, weights_p, weights_c = _unipc_weights(known[:p], sigmas[i], variant)
        B = -h if variant == "bh1" else math.expm1(-h)  # B(h) of section 3.2, for x0
        change = sum((w * D for w, D in zip(weights_p, differences, strict=True)), 0 * x)
        x_p = base - B * change  # (B, C, h, w), UniP-p: predicted
        if i == last:
            on_step(i - 1, known[0][1])
            return x_p
        x0 = denoiser(x_p, sigmas[i])  # (B, C, h, w)
        change = sum((w * D for w, D in zip(weights_c, [*differences, x0 - known[0][1]], strict=True)), 0 * x)
        x = base - B * change  # (B, C, h, w), UniC-p: corrected
        on_step(i - 1, known[0][1])
        known = [(sigmas[i], x0), *known[: order - 1]]
    return x


def _first_order(x: Tensor, newest: tuple[float, Tensor], sigma: float) -> tuple[Tensor, float]:
    """(x at sigma by one exponential Euler step, h = lambda - lambda_0) with lambda = -log sigma."""
    ratio = sigma / newest[0]
    return ratio * x + (1 - ratio) * newest[1], -math.log(ratio)


def _unipc_weights(
    known: Sequence[tuple[float, Tensor]], sigma: float, variant: str
) -> tuple[list[Tensor], list[float], list[float]]:
    """Differences D_m / r_m of the known x0, and their weights in predictor and corrector (which has one more).

    They solve R_p(h) a = phi_p(h) / B(h), the paper's equation 5, with r_m = (lambda_m - lambda_0) / h; a weight alone
    is 1/2.
    """
    (sigma_0, newest), h = known[0], math.log(known[0][0] / sigma)
    rs = [math.log(sigma_0 / level) / h for level, _ in known[1:]]
    differences = [(x0 - newest) / r for r, (_, x0) in zip(rs, known[1:], strict=True)]
    p = len(known)
    B = -h if variant == "bh1" else math.expm1(-h)
    phi, factorial, b = math.expm1(-h) / -h - 1, 1.0, []  # phi_2(-h) (-h), i!, and the right side of equation 5
    for i in range(1, p + 1):
        b.append(phi * factorial / B)
        factorial *= i + 1
        phi = phi / -h - 1 / factorial  # phi_(k+1) = (phi_k - 1 / k!) / -h, times -h
    R = np.array([[r**i for r in [*rs, 1.0]] for i in range(p)])  # (p, p), Vandermonde's
    predictor = [0.5] if p == 2 else np.linalg.solve(R[:-1, :-1], b[:-1]).tolist() if p > 2 else []
    corrector = [0.5] if p == 1 else np.linalg.solve(R, b).tolist()
    return differences, predictor, corrector
