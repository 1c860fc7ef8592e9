"""Schedules: the noise levels that a sampler steps through. Each is (n, levels) -> levels falling, mostly to 0.

Names and numbers are those of A1111 1.10; Turbo is Forge's.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .levels import NoiseLevels

Schedule = Callable[[int, NoiseLevels], list[float]]

# Align Your Steps, arXiv 2404.14507: optimal for 10 steps of SD 1.5 and of SDXL; other numbers are interpolated.
_ALIGNED = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
_ALIGNED_XL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)


def linspace(start: float, end: float, n: int) -> list[float]:
    """n numbers from start to end, both among them; start alone for n = 1."""
    return [start + (end - start) * i / max(1, n - 1) for i in range(n)]


def uniform(n: int, levels: NoiseLevels) -> list[float]:
    """Timesteps at equal distances, T - 1 to 0: k-diffusion's own, "Automatic" where a sampler names no other."""
    return [*map(levels.t_to_sigma, linspace(len(levels.sigmas) - 1, 0, n)), 0.0]


def normal(n: int, levels: NoiseLevels) -> list[float]:
    """Timesteps at equal distances from that of the highest level to that of the lowest."""
    ends = levels.sigma_to_t(levels.sigma_max), levels.sigma_to_t(levels.sigma_min)
    return [*map(levels.t_to_sigma, linspace(*ends, n)), 0.0]


def sgm_uniform(n: int, levels: NoiseLevels) -> list[float]:
    """As normal with n + 1 timesteps, of which 0 is left out (Stability's generative-models)."""
    ends = levels.sigma_to_t(levels.sigma_max), levels.sigma_to_t(levels.sigma_min)
    return [*map(levels.t_to_sigma, linspace(*ends, n + 1)[:-1]), 0.0]


def karras(n: int, levels: NoiseLevels, rho: float = 7.0) -> list[float]:
    """Karras et al. 2206.00364, equation 5: equal distances of sigma^(1 / rho)."""
    return [*karras_levels(n, levels.sigma_min, levels.sigma_max, rho), 0.0]


def karras_levels(n: int, low: float, high: float, rho: float = 7.0) -> list[float]:
    """n levels of that kind from high to low."""
    return [root**rho for root in linspace(high ** (1 / rho), low ** (1 / rho), n)]


def exponential(n: int, levels: NoiseLevels) -> list[float]:
    """Equal distances of log sigma."""
    return polyexponential(n, levels)


def polyexponential(n: int, levels: NoiseLevels, rho: float = 1.0) -> list[float]:
    """log sigma falls as a polynomial of degree rho; 1, A1111's, is exponential."""
    high, low = math.log(levels.sigma_max), math.log(levels.sigma_min)
    return [*(math.exp(ramp**rho * (high - low) + low) for ramp in linspace(1.0, 0.0, n)), 0.0]


def simple(n: int, levels: NoiseLevels) -> list[float]:
    """Every (T / n)th level of the table, from the highest down (ComfyUI)."""
    every = len(levels.sigmas) / n
    return [*(levels.sigmas[-(1 + int(i * every))] for i in range(n)), 0.0]


def ddim(n: int, levels: NoiseLevels) -> list[float]:
    """Levels of timesteps 1, 1 + T // n …: DDIM's, which are more than n where n does not divide T."""
    every = max(len(levels.sigmas) // n, 1)
    return [*levels.sigmas[1::every][::-1], 0.0]


def beta(n: int, levels: NoiseLevels, a: float = 0.6, b: float = 0.6) -> list[float]:
    """Beta Sampling is All You Need, arXiv 2407.12173: levels at quantiles of the beta distribution."""
    low, high = levels.sigma_min, levels.sigma_max
    return [*(low + beta_quantile(1.0 - q, a, b) * (high - low) for q in linspace(0.0, 1.0, n)), 0.0]


def kl_optimal(n: int, levels: NoiseLevels) -> list[float]:
    """Align Your Steps, arXiv 2404.14507, theorem 3.1: best for Gaussian data; ends at the lowest level, not at 0."""
    ramp = linspace(math.atan(levels.sigma_max), math.atan(levels.sigma_min), n + 1)
    return [math.tan(angle) for angle in ramp]


def align_your_steps(n: int, levels: NoiseLevels) -> list[float]:
    """Align Your Steps, arXiv 2404.14507: a table, between its entries a line in log sigma."""
    table = _ALIGNED_XL if levels.xl else _ALIGNED
    logs = [math.log(sigma) for sigma in table]
    found = []
    for place in linspace(0, len(logs) - 1, n):
        low = min(int(place), len(logs) - 2)
        found.append(math.exp(logs[low] + (place - low) * (logs[low + 1] - logs[low])))
    return [*found, 0.0]


def turbo(n: int, levels: NoiseLevels) -> list[float]:
    """Timesteps T - 1, T - 1 - T / n …: those that SDXL Turbo was distilled for (arXiv 2311.17042)."""
    count = len(levels.sigmas)
    places = [min(max(round(i * count / n - 1), 0), count - 1) for i in range(n, 0, -1)]
    return [*(levels.sigmas[place] for place in places), 0.0]


AUTOMATIC = "Automatic"  # the schedule that suits the sampler

SCHEDULES: dict[str, Schedule] = {
    "Uniform": uniform,
    "Karras": karras,
    "Exponential": exponential,
    "Polyexponential": polyexponential,
    "SGM Uniform": sgm_uniform,
    "KL Optimal": kl_optimal,
    "Align Your Steps": align_your_steps,
    "Simple": simple,
    "Normal": normal,
    "DDIM": ddim,
    "Beta": beta,
    "Turbo": turbo,
}


def beta_quantile(q: float, a: float, b: float) -> float:
    """x in [0, 1] with I_x(a, b) = q: bisection, then exact to the last bits of a float."""
    if q <= 0.0 or q >= 1.0:
        return min(max(q, 0.0), 1.0)
    if q > 0.5:  # near 1 a float cannot tell x from 1, but 1 - x from 0
        return 1.0 - beta_quantile(1.0 - q, b, a)
    low, high = 0.0, 1.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if incomplete_beta(middle, a, b) < q else (low, middle)
    return middle


def incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), regularized: Lentz's continued fraction (Numerical Recipes, section 6.4)."""
    if x <= 0.0 or x >= 1.0:
        return min(max(x, 0.0), 1.0)
    if x > (a + 1.0) / (a + b + 2.0):
        return 1.0 - incomplete_beta(1.0 - x, b, a)
    front = math.exp(a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    c, d = 1.0, 1.0 / (1.0 - (a + b) * x / (a + 1.0))
    fraction = d
    for m in range(1, 200):
        for factor in (
            m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0)),
        ):
            d = 1.0 / (1.0 + factor * d)
            c = 1.0 + factor / c
            fraction *= c * d
        if abs(c * d - 1.0) < 1e-16:
            break
    return front * fraction / a
