"""How fast each sampler's error falls with the number of steps, on normally distributed data, whose path is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from analytic import beginning, gaussian, gaussian_path
from torch import Tensor

from maquette.sampling import samplers_ode as ode
from maquette.sampling import samplers_sde as sde
from maquette.sampling import samplers_timesteps as by_time


class Gaussian:
    """The denoiser, also for CFG++ without guidance."""

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        return gaussian(x, sigma)

    def both(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return gaussian(x, sigma), gaussian(x, sigma)


def error(sampler: Callable[..., Tensor], steps: int, options: dict[str, Any]) -> float:
    """Largest error at level 0.05, from 5 in equal steps of log sigma.

    The first and last are cut into small ones, which multistep methods make with lower order.
    """
    ends = [1e-4, 1e-3, 1e-2, 1e-1]
    places = [0, *ends, *range(1, steps), *(steps - end for end in reversed(ends)), steps]
    sigmas = [5.0 * (0.05 / 5.0) ** (place / steps) for place in places]
    x = sampler(Gaussian(), beginning(5.0), sigmas, **options)
    return float((x - gaussian_path(beginning(5.0), 5.0, 0.05)).abs().max())


ORDERS: list[tuple[Callable[..., Tensor], dict[str, Any], float]] = [
    (ode.sample_euler, {}, 1),
    (ode.sample_heun, {}, 2),
    (ode.sample_dpm_2, {}, 2),
    (ode.sample_dpmpp_2m, {}, 2),
    (ode.sample_lms, {"order": 2}, 2),
    (ode.sample_lms, {"order": 3}, 3),
    (ode.sample_lms, {"order": 4}, 4),
    (by_time.sample_ddim, {}, 1),
    (by_time.sample_ddim_cfgpp, {}, 1),
    (by_time.sample_unipc, {"order": 2}, 2),
    (by_time.sample_unipc, {"order": 3}, 3),
    (by_time.sample_unipc, {"order": 2, "variant": "bh2"}, 2),
    (sde.sample_dpmpp_2s_ancestral, {"eta": 0.0}, 2),
    (sde.sample_dpmpp_sde, {"eta": 0.0}, 2),
    (sde.sample_dpmpp_2m_sde, {"eta": 0.0}, 2),
    (sde.sample_dpmpp_2m_sde, {"eta": 0.0, "solver_type": "heun"}, 2),
    (sde.sample_dpmpp_3m_sde, {"eta": 0.0}, 2),  # as k-diffusion has it: half of the last term that order 3 wants
    (sde.sample_dpm_2_ancestral, {"eta": 0.0}, 2),
    (sde.sample_euler_ancestral, {"eta": 0.0}, 1),
]


@pytest.mark.parametrize(("sampler", "options", "order"), ORDERS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_order_of_convergence(sampler: Callable[..., Tensor], options: dict[str, Any], order: float) -> None:
    if "eta" in options:
        options = {**options, "noise": lambda sigma, sigma_next: torch.zeros(())}
    few, many = error(sampler, 80, options), error(sampler, 160, options)
    assert math.log2(few / many) == pytest.approx(order, abs=0.35) or math.log2(few / many) > order
    assert many < 2e-2
