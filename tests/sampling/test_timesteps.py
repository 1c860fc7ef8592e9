"""Samplers that k-diffusion has not: against diffusers' schedulers, their papers' formulas, and known distributions."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from analytic import beginning, gaussian
from diffusers import DDIMScheduler, LCMScheduler, PNDMScheduler, UniPCMultistepScheduler
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.sampling.denoiser import GuidedDenoiser
from maquette.sampling.levels import LcmLevels, NoiseLevels
from maquette.sampling.loop import SamplingOptions, sample
from maquette.sampling.noise import ImageNoise, NoiseOptions
from maquette.sampling.samplers import SAMPLERS
from maquette.sampling.samplers_sde import restart_levels, sample_lcm
from maquette.sampling.samplers_timesteps import sample_ddim_cfgpp, sample_unipc
from maquette.sampling.schedules import karras_levels, linspace
from maquette.sampling.steps import at_scale_of_network, at_scale_of_samplers

SD1: dict[str, Any] = {
    "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012,
    "timestep_spacing": "leading", "steps_offset": 1, "set_alpha_to_one": False,
}  # fmt: skip
SHAPE = (1, 4, 2, 3)
COUNT = 40_000


class Network:
    """A base whose network answers some smooth function of x_t and t."""

    spec = SimpleNamespace(latent_factor=8, latent_channels=4, size_multiple=8, name="sd1")
    device = torch.device("cpu")

    def __init__(self, **config: Any) -> None:
        self.scheduler_config = SD1 | config
        self.asked: list[float] = []

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        self.asked.append(float(t[0]))
        told = conditioning.tokens.mean(dim=(1, 2))[:, None, None, None]
        return torch.sin(x_t + t.reshape(-1, 1, 1, 1) / 300 + told) * 0.8


TOLD = Conditioning(torch.zeros(1, 77, 8))


def ours(network: Any, sampler: str, steps: int, **options: Any) -> Tensor:
    return sample(
        network, TOLD, None, sampler=sampler, steps=steps, cfg_scale=1.0, seeds=[3], width=24, height=16, **options
    )  # fmt: skip


def theirs(network: Network, scheduler: Any, steps: int, first: int = 0, clean: Tensor | None = None) -> Tensor:
    """Diffusers' loop with the noise of seed 3; from a picture, `first` steps are left out."""
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    scheduler.set_timesteps(steps)
    x = noise
    if clean is not None:
        x = scheduler.add_noise(clean, noise, scheduler.timesteps[first - 1 : first])
    for t in scheduler.timesteps[first:]:
        x = scheduler.step(network.predict(x, t[None], TOLD), t, x).prev_sample
    return x


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_ddim(spacing: str, prediction: str) -> None:
    network = Network(timestep_spacing=spacing, prediction_type=prediction)
    scheduler = DDIMScheduler(**network.scheduler_config, clip_sample=False)
    drawn = ours(network, "DDIM", 20)
    asked = network.asked
    assert asked == [float(t) for t in (scheduler.set_timesteps(20), scheduler.timesteps)[1]]
    if spacing != "linspace":  # there diffusers steps by T / steps and not to the next timestep
        assert close(drawn, theirs(network, scheduler, 20))


def test_ddim_with_eta() -> None:
    network = Network()
    scheduler = DDIMScheduler(**SD1, clip_sample=False)
    scheduler.set_timesteps(20)
    noise = ImageNoise([3], SHAPE[1:], network.device, NoiseOptions())
    x = noise.first()
    for t in scheduler.timesteps:
        output = network.predict(x, t[None], TOLD)
        x = scheduler.step(output, t, x, eta=0.7, variance_noise=noise.next()).prev_sample
    assert close(ours(network, "DDIM", 20, options=SamplingOptions(eta=0.7)), x)


@pytest.mark.parametrize("sampler", ["DDIM", "PLMS"])
def test_from_a_picture(sampler: str) -> None:
    """t_enc steps, beginning with the noise of the timestep before them."""
    network, clean = Network(), beginning(1.0).float().reshape(1, 4, 1, 3).repeat(1, 1, 2, 1)
    drawn = ours(network, sampler, 20, init_latents=clean, denoising_strength=0.5)
    assert network.asked[0] == 451.0 and len(network.asked) == 10 + (sampler == "PLMS")
    if sampler == "DDIM":
        assert close(drawn, theirs(network, DDIMScheduler(**SD1, clip_sample=False), 20, 10, clean))


def test_timesteps_that_do_not_divide_1000() -> None:
    """A1111 takes every (1000 // steps)th plus 1: of 30 steps 31, and 30 calls of the denoiser."""
    network = Network()
    ours(network, "DDIM", 30)
    assert network.asked == [float(t) for t in range(991, 1, -33)]


def test_plms() -> None:
    network = Network()
    assert close(ours(network, "PLMS", 20), theirs(network, PNDMScheduler(**SD1, skip_prk_steps=True), 20))
    assert len(network.asked) == 42


@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc(order: int, variant: Any) -> None:
    network, levels = Network(), NoiseLevels.from_config(SD1)
    scheduler = UniPCMultistepScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, timestep_spacing="linspace",
        solver_order=order, solver_type=variant, final_sigmas_type="sigma_min",
    )  # fmt: skip
    sigmas = [levels.t_to_sigma(t) for t in linspace(999, 0, 28)]  # of 27 steps, all at whole timesteps
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    denoiser = GuidedDenoiser(network, levels, TOLD, None, 1.0)
    x = sample_unipc(denoiser, at_scale_of_samplers(noise, sigmas[0]), sigmas, order=order, variant=variant)
    assert torch.allclose(at_scale_of_network(x, sigmas[-1]), theirs(network, scheduler, 27), rtol=1e-4, atol=1e-4)


def test_unipc_steps_as_a1111() -> None:
    """From T - 1 to 0; from a picture its last step counts from the picture's own timestep."""
    network = Network()
    ours(network, "UniPC", 20)
    assert network.asked == pytest.approx([999 - 999 / 20 * i for i in range(20)], abs=1e-3)
    network.asked.clear()
    ours(network, "UniPC", 20, init_latents=torch.zeros(SHAPE), denoising_strength=0.5)
    assert network.asked == pytest.approx([451 - 45.1 * i for i in range(10)], abs=1e-3)


def test_cfgpp() -> None:
    """x_{t-1} = sqrt(abar) x0(guided) + sqrt(1 - abar) eps(negative); A1111's scale 12.5 is 1."""
    network, levels = Network(), NoiseLevels.from_config(SD1)
    negative = Conditioning(torch.full((1, 77, 8), 0.5))
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    x, abar = noise, [1 / (sigma**2 + 1) for sigma in levels.sigmas]
    for t in range(951, 0, -50):
        positive, other = (network.predict(x, torch.tensor([t]), told) for told in (TOLD, negative))
        x0 = (x - math.sqrt(1 - abar[t]) * (other + 0.56 * (positive - other))) / math.sqrt(abar[t])
        before = abar[max(t - 50, 0)]
        x = math.sqrt(before) * x0 + math.sqrt(1 - before) * other
    drawn = sample(
        network, TOLD, negative, sampler="DDIM CFG++", steps=20, cfg_scale=7.0, seeds=[3], width=24, height=16
    )  # fmt: skip
    assert close(drawn, x)
    alone = GuidedDenoiser(network, levels, TOLD, None, 1.0)
    assert sample_ddim_cfgpp(alone, noise, [2.0, 1.0]).isfinite().all()  # without a negative prompt


def test_lcm() -> None:
    network = Network()
    scheduler = LCMScheduler(**SD1)
    scheduler.set_timesteps(4)
    levels = LcmLevels.of(NoiseLevels.from_config(SD1))
    assert [levels.time(sigma) for sigma in levels.sigmas] == [19.0 + 20 * i for i in range(50)]
    noise = ImageNoise([3], SHAPE[1:], network.device, NoiseOptions())
    sigmas = [*(NoiseLevels.from_config(SD1).sigmas[t] for t in scheduler.timesteps.tolist()), 0.0]
    denoiser = GuidedDenoiser(network, levels, TOLD, None, 1.0)
    drawn = sample_lcm(denoiser, noise.first() * math.sqrt(sigmas[0] ** 2 + 1), sigmas, noise=noise.next)
    draws = torch.Generator().manual_seed(3)
    x = torch.randn(SHAPE, generator=draws)
    for t in scheduler.timesteps:
        x = scheduler.step(network.predict(x, t[None], TOLD), t, x, generator=draws).prev_sample
    assert torch.allclose(drawn, x, rtol=1e-4, atol=2e-4)  # c_skip is of x here and of x_t there, 7e-6 of them


def test_restart_spends_its_steps_on_going_again() -> None:
    few = [*karras_levels(19, 0.03, 14.6), 0.0]
    assert restart_levels(few) == list(pairwise(few))
    for steps, again, times in ((20, 9, 1), (36, 9, 2), (50, 12, 2)):
        way = restart_levels([*karras_levels(steps, 0.03, 14.6), 0.0])
        assert len(way) == steps
        jumps = [(before[1], after[0]) for before, after in pairwise(way) if abs(before[1] - after[0]) > 1e-6]
        assert len(jumps) == times
        assert all(abs(low - 0.1) < 0.08 and abs(high - 2.0) < 1.0 for low, high in jumps)
        start = next(i for i, (high, _) in enumerate(way) if i and high > way[i - 1][1] + 1e-6)
        assert way[start + again - 1][1] == pytest.approx(jumps[0][0])
    assert way[0][0] == pytest.approx(14.6) and way[-1][1] == 0.0


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.takes("noise") and name != "LCM"])
def test_what_is_drawn_has_the_spread_of_the_data(sampler: str) -> None:
    """Normally distributed data with deviation 0.8; of 40,000 numbers it is known to 0.35 %."""
    kind = SAMPLERS[sampler]
    first_order = kind.calls == 1 and not kind.brownian
    sigmas = [*karras_levels(800 if first_order else 60, 0.01, 30.0), 0.0]
    draws = torch.Generator().manual_seed(5)
    moved: dict[float, Tensor] = {}

    def noise(sigma: float, sigma_next: float) -> Tensor:
        if not kind.brownian:
            return torch.randn(COUNT, generator=draws, dtype=torch.float64)
        step = next((a, b) for a, b in pairwise(sigmas) if a >= sigma and sigma_next >= b)
        if step[0] not in moved:  # both halves of a step that also asks for the way to its middle
            moved[step[0]] = torch.randn(2, COUNT, generator=draws, dtype=torch.float64)
        first, second = moved[step[0]]
        if sigma_next > step[1]:
            return first
        part = (step[0] - math.sqrt(step[0] * step[1])) / (step[0] - step[1])
        return math.sqrt(part) * first + math.sqrt(1 - part) * second

    x = torch.randn(COUNT, generator=draws, dtype=torch.float64) * math.sqrt(30.0**2 + 0.8**2)
    options = {"eta": 1.0} if kind.takes("eta") else {"s_churn": 10.0} if kind.takes("s_churn") else {}

    class Both:
        def __call__(self, x: Tensor, sigma: float) -> Tensor:
            return gaussian(x, sigma)

        def both(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
            return gaussian(x, sigma), gaussian(x, sigma)

    drawn = kind.run(Both(), x, sigmas, noise=noise, **options, **kind.options)
    assert float(drawn.std()) == pytest.approx(0.8, rel=0.015)
