"""Samplers that add noise as they go, in k-diffusion's manner (see `samplers_ode` for what all of them are given).

noise(sigma, sigma_next) is white for the ancestral samplers and Restart, and the way of a Brownian motion between the
two levels for the SDE samplers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor

from .samplers_ode import Denoise, Noise, OnStep, derivative, heun_step, midpoint_step, no_report
from .schedules import karras_levels


def ancestral_step(sigma: float, sigma_next: float, eta: float = 1.0) -> tuple[float, float]:
    """(sigma_down, sigma_up): step down to the first, add noise of the second, and sigma_next is reached.

    DDPM's posterior (Ho et al. 2006.11239, equation 7) for eta = 1, nothing added for 0 (DDIM 2010.02502, equation 16).
    """
    if not eta:
        return sigma_next, 0.0
    sigma_up = min(sigma_next, eta * math.sqrt(sigma_next**2 * (sigma**2 - sigma_next**2) / sigma**2))
    return math.sqrt(sigma_next**2 - sigma_up**2), sigma_up


def sample_euler_ancestral(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Ancestral sampling with Euler's method: DDPM 2006.11239, algorithm 2, at any levels (2010.02502, equation 12)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = x + derivative(x, sigma, x0) * (sigma_down - sigma)
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        on_step(i, x0)
    return x


def sample_dpm_2_ancestral(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Ancestral sampling with DPM-Solver-2 (2206.00927, algorithm 1), two calls per step."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        x = midpoint_step(denoiser, x, sigma, sigma_down, x0)
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        on_step(i, x0)
    return x


def sample_dpmpp_2s_ancestral(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Ancestral sampling with DPM-Solver++(2S): Lu et al. 2211.01095, algorithm 1 with r = 1/2, two calls per step."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        sigma_down, sigma_up = ancestral_step(sigma, sigma_next, eta)
        D = x0
        if sigma_down > 0:
            sigma_mid = math.sqrt(sigma * sigma_down)  # s = t + h / 2
            x_2 = sigma_mid / sigma * x + (1 - sigma_mid / sigma) * x0
            D = denoiser(x_2, sigma_mid)
        x = sigma_down / sigma * x + (1 - sigma_down / sigma) * D
        if sigma_up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * sigma_up)
        on_step(i, x0)
    return x


def sample_dpmpp_sde(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    on_step: OnStep = no_report,
) -> Tensor:
    """SDE-DPM-Solver++(2S), two calls per step: the SDE of Lu et al. 2211.01095, section 5, by their algorithm 1."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = D = denoiser(x, sigma)
        if sigma_next > 0:
            sigma_mid = sigma * (sigma_next / sigma) ** r  # s = t + r h
            down, up = ancestral_step(sigma, sigma_mid, eta)
            x_2 = down / sigma * x + (1 - down / sigma) * x0
            x_2 = x_2 + noise(sigma, sigma_mid) * (s_noise * up)
            D = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * denoiser(x_2, sigma_mid)
        down, up = ancestral_step(sigma, sigma_next, eta)
        x = down / sigma * x + (1 - down / sigma) * D
        if up > 0:
            x = x + noise(sigma, sigma_next) * (s_noise * up)
        on_step(i, x0)
    return x


def sample_dpmpp_2m_sde(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: Literal["midpoint", "heun"] = "midpoint",
    on_step: OnStep = no_report,
) -> Tensor:
    """SDE-DPM-Solver++(2M): Lu et al. 2211.01095, section 5, with eta times its noise.

    h = log(sigma / sigma_next), k = (1 + eta) h; "heun" has phi_2 of k in the place of half of phi_1.
    """
    x0_last, h_last = None, 0.0
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        if sigma_next == 0:
            x = x0
        else:
            h = math.log(sigma / sigma_next)  # lambda_next - lambda
            k = (1 + eta) * h
            grown = -math.expm1(-k)
            x = math.exp(-k) * x + grown * x0
            if x0_last is not None:
                factor = 1 - grown / k if solver_type == "heun" else grown / 2
                x = x + factor * h / h_last * (x0 - x0_last)
            if eta:
                x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise)
            h_last = h
        x0_last = x0
        on_step(i, x0)
    return x


def sample_dpmpp_3m_sde(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    eta: float = 1.0,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """DPM-Solver++(3M) SDE (Crowson, k-diffusion): 2M SDE with divided differences of the last three x0.

    h, k as in 2M SDE; phi_2 = (exp(-k) - 1) / k + 1, phi_3 = phi_2 / k - 1/2.
    """
    past: list[tuple[Tensor, float]] = []  # (x0, h of the step that followed it), the newest first
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        h = math.log(sigma / sigma_next) if sigma_next > 0 else math.inf  # lambda_next - lambda
        if sigma_next == 0:
            x = x0
        else:
            k = (1 + eta) * h
            x = math.exp(-k) * x - math.expm1(-k) * x0
            phi_2 = math.expm1(-k) / k + 1
            if len(past) == 2:
                (x0_1, h_1), (x0_2, h_2) = past
                r0, r1 = h_1 / h, h_2 / h
                d0, d1 = (x0 - x0_1) / r0, (x0_1 - x0_2) / r1  # (B, C, h, w), per h
                second = (d0 - d1) / (r0 + r1)  # (B, C, h, w), divided difference of second order
                x = x + phi_2 * (d0 + second * r0) - (phi_2 / k - 0.5) * second  # slope at sigma, then phi_3
            elif past:
                x = x + phi_2 * (x0 - past[0][0]) * (h / past[0][1])
            if eta:
                x = x + noise(sigma, sigma_next) * (sigma_next * math.sqrt(-math.expm1(-2 * eta * h)) * s_noise)
        past = [(x0, h), *past[:1]]
        on_step(i, x0)
    return x


def sample_lcm(
    denoiser: Denoise, x: Tensor, sigmas: Sequence[float], *, noise: Noise, on_step: OnStep = no_report
) -> Tensor:
    """Multistep consistency sampling: Luo et al. 2310.04378, algorithm 3 (Song et al. 2303.01469, algorithm 1)."""
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x = x0 = denoiser(x, sigma)
        if sigma_next > 0:
            x = x0 + noise(sigma, sigma_next) * sigma_next
        on_step(i, x0)
    return x


def sample_restart(
    denoiser: Denoise,
    x: Tensor,
    sigmas: Sequence[float],
    *,
    noise: Noise,
    s_noise: float = 1.0,
    on_step: OnStep = no_report,
) -> Tensor:
    """Restart sampling with Heun steps: Xu et al. 2306.14878, algorithm 1, restarts chosen as A1111 does.

    From 20 steps on, some of the steps are spent on going again from level 2 to 0.1, once, or twice from 36 on.
    """
    last = sigmas[0]
    for i, (sigma, sigma_next) in enumerate(restart_levels(sigmas)):
        if sigma > last:
            x = x + noise(last, sigma) * (s_noise * math.sqrt(sigma**2 - last**2))
        x0 = denoiser(x, sigma)  # D(x; sigma), (B, C, h, w)
        x = heun_step(denoiser, x, sigma, sigma_next, x0)
        last = sigma_next
        on_step(i, x0)
    return x


def restart_levels(sigmas: Sequence[float]) -> list[tuple[float, float]]:
    """(from, to) of every step: `sigmas` for less than 20, else Karras levels between their ends, with restarts."""
    steps = len(sigmas) - 1
    if steps < 20:
        return list(pairwise(sigmas))
    again, times = (9, 1) if steps < 36 else (steps // 4, 2)
    levels = [*karras_levels(steps - again * times, sigmas[-2], sigmas[0]), 0.0]

    def nearest(level: float) -> int:
        return min(range(len(levels)), key=lambda place: abs(levels[place] - level))

    low, high = nearest(0.1), nearest(2.0)
    way = list(pairwise(levels))
    if high >= low:
        return way
    return way[:low] + list(pairwise(karras_levels(again + 1, levels[low], levels[high]))) * times + way[low:]
