"""Samplers without noise of their own (Euler, Heun and DPM2 can be churned), in k-diffusion's manner.

Each: sample_*(denoiser, x, sigmas) -> x at the last of `sigmas`. x: (B, C, h, w) = x0 + sigmas[0] n. sigmas: levels,
falling, often to 0. denoiser(x, sigma) -> the clean latent x0, same shape. on_step(i, x0) follows step i.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from torch import Tensor

Noise = Callable[[float, float], Tensor]
"""noise(sigma, sigma_next) -> (B, C, h, w) with deviation 1: what the way from one level to the other adds."""

OnStep = Callable[[int, Tensor], None]


class Denoise(Protocol):
    """denoiser(x, sigma) -> x0: the mean of the clean latents that x can be a noisy one of."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor: ...


def no_noise(sigma: float, sigma_next: float) -> Tensor:
    """For samplers that were not told to add any."""
    raise ValueError("this sampler needs a source of noise")


def no_report(i: int, x0: Tensor) -> None:
    """Tell nobody."""


def derivative(x: Tensor, sigma: float, x0: Tensor) -> Tensor:
    """dx / dsigma = (x - x0) / sigma, the noise in x (Karras et al. 2206.00364, equations 1 and 3)."""
    return (x - x0) / sigma


def sample_euler(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise = no_noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Euler's method: Karras et al. 2206.00364, algorithm 2 without its lines 9 to 11."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, s_churn / (len(sigmas) - 1), (s_tmin, s_tmax), s_noise, noise)
        x0 = denoiser(x, sigma_hat)  # D(x_hat; t_hat), (B, C, h, w), line 7
        x = x + derivative(x, sigma_hat, x0) * (sigma_next - sigma_hat)  # (B, C, h, w), line 8
        on_step(i, x0)
    return x


def sample_heun(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise = no_noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Heun's method, two calls per step: Karras et al. 2206.00364, algorithm 2."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, s_churn / (len(sigmas) - 1), (s_tmin, s_tmax), s_noise, noise)
        x0 = denoiser(x, sigma_hat)  # D(x_hat; t_hat), (B, C, h, w), line 7
        x = heun_step(denoiser, x, sigma_hat, sigma_next, x0)  # (B, C, h, w), lines 7 to 11
        on_step(i, x0)
    return x


def sample_dpm_2(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise = no_noise,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """DPM-Solver-2, the midpoint in log sigma: Lu et al. 2206.00927, algorithm 1, two calls per step."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, sigma_hat = churn(x, sigma, s_churn / (len(sigmas) - 1), (s_tmin, s_tmax), s_noise, noise)
        x0 = denoiser(x, sigma_hat)  # D(x_hat; t_hat), (B, C, h, w)
        x = midpoint_step(denoiser, x, sigma_hat, sigma_next, x0)  # (B, C, h, w)
        on_step(i, x0)
    return x


def heun_step(denoiser: Denoise, x: Tensor, sigma: float, sigma_next: float, x0: Tensor) -> Tensor:
    """x at sigma_next by the mean of the derivatives at both levels; to 0 by Euler's method."""
    d = derivative(x, sigma, x0)
    dt = sigma_next - sigma
    if sigma_next > 0:
        x_2 = x + d * dt  # (B, C, h, w), line 8
        d = (d + derivative(x_2, sigma_next, denoiser(x_2, sigma_next))) / 2
    return x + d * dt


def midpoint_step(denoiser: Denoise, x: Tensor, sigma: float, sigma_next: float, x0: Tensor) -> Tensor:
    """x at sigma_next by the derivative at the geometric mean of both levels; to 0 by Euler's method."""
    d = derivative(x, sigma, x0)
    if sigma_next > 0:
        sigma_mid = math.sqrt(sigma * sigma_next)
        x_2 = x + d * (sigma_mid - sigma)  # (B, C, h, w), u of DPM-Solver-2, its algorithm 1, at the geometric mean
        d = derivative(x_2, sigma_mid, denoiser(x_2, sigma_mid))
    return x + d * (sigma_next - sigma)


def sample_lms(
    denoiser: Denoise, x: Tensor, sigmas: Sequence[float], *, order: int = 4, on_step: OnStep = no_report
) -> Tensor:
    """Linear multistep (Adams-Bashforth on unequal steps): the polynomial through the last derivatives, integrated."""
    ds: list[Tensor] = []
    for i, sigma in enumerate(sigmas[:-1]):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        ds = [derivative(x, sigma, x0), *ds[: order - 1]]
        weights = multistep_weights(sigmas[max(0, i + 1 - order) : i + 1][::-1], sigmas[i + 1])
        x = x + sum(weight * d for weight, d in zip(weights, ds, strict=True))
        on_step(i, x0)
    return x


def multistep_weights(known: Sequence[float], to: float) -> list[float]:
    """What the derivative at each known level, the newest first, weighs in the integral from the newest to `to`.

    The integrals of Lagrange's basis polynomials, exact: their degree is below that which Gauss's rule integrates.
    """
    nodes, weights = np.polynomial.legendre.leggauss(len(known) // 2 + 1)
    half = (to - known[0]) / 2
    places = known[0] + half * (nodes + 1)  # (n,) levels: Gauss-Legendre nodes, from [-1, 1] to [known[0], to]
    found = []
    for j, own in enumerate(known):
        others = [other for k, other in enumerate(known) if k != j]
        values = np.prod([(places - other) / (own - other) for other in others], axis=0) * np.ones_like(places)
        found.append(float(half * (weights * values).sum()))
    return found


def sample_dpmpp_2m(denoiser: Denoise, x: Tensor, sigmas: Sequence[float], *, on_step: OnStep = no_report) -> Tensor:
    """DPM-Solver++(2M): Lu et al. 2211.01095, algorithm 2. With t = -log sigma, h = t_next - t, r = h_last / h."""
    x0_last, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        D = x0
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf  # lambda_next - lambda
        if x0_last is not None and sigma_next > 0:
            r = h_last / h
            D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_last
        x = sigma_next / sigma * x + (1 - sigma_next / sigma) * D  # exp(-h) = sigma_next / sigma
        x0_last, h_last = x0, h
        on_step(i, x0)
    return x


def churn(
    x: Tensor, sigma: float, amount: float, between: tuple[float, float], s_noise: float, noise: Noise
) -> tuple[Tensor, float]:
    """(x, sigma_hat): noise added before a step. Karras et al. 2206.00364, algorithm 2, lines 4 to 6.

    amount: S_churn / N. Noise is drawn at levels outside of `between`, too, as k-diffusion does.
    """
    if not amount:
        return x, sigma
    eps = noise(sigma, sigma) * s_noise
    gamma = min(amount, math.sqrt(2) - 1) if between[0] <= sigma <= between[1] else 0.0
    sigma_hat = sigma * (1 + gamma)
    return x + eps * math.sqrt(sigma_hat**2 - sigma**2), sigma_hat
