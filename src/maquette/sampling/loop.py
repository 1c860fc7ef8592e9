"""From noise to latents: the loop shared by `generate`, the sample pictures of training, and the benchmarks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.denoiser import Conditioning
from ..core.guidance import Parts, guided
from ..errors import MaquetteError
from ..families.base import BaseModel
from .diffusers_schedulers import image_steps, kind_of, scheduler_for

if TYPE_CHECKING:
    from ..prompts.encode import Prompt

Step = Callable[[int, int], None]


def check_size(base: BaseModel, width: int, height: int) -> None:
    """Sides must be whole numbers of latent cells. A UNet halves odd ones up and cuts them on the way back."""
    unit = base.spec.latent_factor
    if width % unit or height % unit or min(width, height) < unit:
        raise MaquetteError(f"{width} x {height} is not possible: with this base both sides are multiples of {unit}.")


@torch.no_grad()
def sample(
    base: BaseModel,
    cond: Conditioning | Prompt,
    uncond: Conditioning | Prompt | None,
    *,
    sampler: str,
    steps: int,
    cfg_scale: float,
    seeds: Sequence[int],
    width: int,
    height: int,
    init_latents: Tensor | None = None,
    denoising_strength: float = 1.0,
    callback: Step | None = None,
) -> Tensor:
    """Latents (B, 4, h, w), float32, unit-scaled, one per seed; B rows in each conditioning.

    Every picture has its own CPU noise generator, so a batch equals its pictures made one by one. init_latents:
    begin from these instead of pure noise (image to image); of the steps then as many are run as `image_steps` says.
    callback(done, of) follows each call of the denoiser.
    """
    check_size(base, width, height)
    scheduler = scheduler_for(sampler, base.scheduler_config)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    shape = (1, 4, height // base.spec.latent_factor, width // base.spec.latent_factor)
    noise = torch.cat([torch.randn(shape, generator=g) for g in generators]).to(base.device)
    scheduler.set_timesteps(steps)
    first = 0 if init_latents is None else steps - image_steps(sampler, steps, denoising_strength)
    timesteps = scheduler.timesteps[first * scheduler.order :]
    if init_latents is not None and not len(timesteps):
        return init_latents.float()
    if init_latents is None:
        x = noise * scheduler.init_noise_sigma
    else:
        # As in A1111, samplers by timesteps begin with the noise of the timestep before their first.
        x = _noised(scheduler, init_latents.to(noise), noise, first - kind_of(sampler).by_timesteps)
        _begin(scheduler, first)
    extra: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generators
    for i, t in enumerate(timesteps):
        model_input = scheduler.scale_model_input(x, t)
        times = t.to(base.device).expand(len(x))
        number = first + i // scheduler.order + 1
        negative = None if uncond is None else _at(uncond, i, number)[0][0]
        output = guided(base, model_input, times, _at(cond, i, number), negative, cfg_scale)
        x = scheduler.step(output.float(), t, x, **extra, return_dict=False)[0]
        if callback is not None:
            callback(i + 1, len(timesteps))
    return x.float()


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, step: int) -> Tensor:
    """Latents with the noise that they have before a step, counted from 0."""
    _begin(scheduler, step)
    t = scheduler.timesteps[step * scheduler.order]
    x: Tensor = scheduler.add_noise(clean, noise, t.repeat(len(noise)))
    return x


def _begin(scheduler: Any, step: int) -> None:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(step * scheduler.order)


def _at(prompt: Conditioning | Prompt, call: int, step: int) -> Parts:
    """What guides at a call of the denoiser, counted from 0, in a step of the schedule, counted from 1."""
    return [(prompt, 1.0)] if isinstance(prompt, Conditioning) else prompt.at_call(call, step)
