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
from .samplers import scheduler_for

if TYPE_CHECKING:
    from ..prompts.encode import Prompt

Step = Callable[[int, int], None]


def check_size(base: BaseModel, width: int, height: int) -> None:
    """Sides must be whole numbers of latent cells that the UNet can halve down to its smallest level and back."""
    levels = len(base.unet.config.block_out_channels) - 1  # type: ignore[union-attr, arg-type]
    unit = base.spec.latent_factor * 2**levels
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
    begin from these instead of pure noise (image to image); `denoising_strength` is the share of the steps that is run.
    callback(done, of) follows each call of the denoiser.
    """
    check_size(base, width, height)
    scheduler = scheduler_for(sampler, base.scheduler_config)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    shape = (1, 4, height // base.spec.latent_factor, width // base.spec.latent_factor)
    noise = torch.cat([torch.randn(shape, generator=g) for g in generators]).to(base.device)
    scheduler.set_timesteps(steps)
    first = 0 if init_latents is None else steps - min(steps, round(steps * denoising_strength))
    timesteps = scheduler.timesteps[first * scheduler.order :]
    if init_latents is not None and not len(timesteps):
        return init_latents.float()
    if init_latents is None:
        x = noise * scheduler.init_noise_sigma
    else:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first * scheduler.order)
        x = scheduler.add_noise(init_latents.to(noise), noise, timesteps[:1].repeat(len(noise)))
    extra: dict[str, Any] = {}
    if "generator" in inspect.signature(scheduler.step).parameters:
        extra["generator"] = generators
    for i, t in enumerate(timesteps):
        model_input = scheduler.scale_model_input(x, t)
        times = t.to(base.device).expand(len(x))
        number = first + i // scheduler.order + 1
        negative = None if uncond is None else _at(uncond, number)[0][0]
        output = guided(base, model_input, times, _at(cond, number), negative, cfg_scale)
        x = scheduler.step(output.float(), t, x, **extra, return_dict=False)[0]
        if callback is not None:
            callback(i + 1, len(timesteps))
    return x.float()


def _at(prompt: Conditioning | Prompt, step: int) -> Parts:
    """What guides at a step, counted from 1."""
    return [(prompt, 1.0)] if isinstance(prompt, Conditioning) else prompt.at(step)
