"""From noise to latents: the drawing shared by `generate`, the sample pictures of training, and the benchmarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..core.denoiser import Conditioning, Denoiser
from ..errors import MaquetteError
from ..families.base import BaseModel
from .brownian import BrownianNoise
from .denoiser import GuidedDenoiser, OnDenoised, Takeover
from .levels import NoiseLevels
from .noise import ImageNoise, NoiseOptions
from .samplers import SamplerKind, kind_of, named_schedule, suited
from .samplers_ode import Noise, OnStep, no_report
from .steps import Steps, at_scale_of_network, at_scale_of_samplers, encoded_steps

if TYPE_CHECKING:
    from ..prompts.encode import Prompt

Step = Callable[[int, int], None]


@dataclass(frozen=True)
class SamplingOptions:
    """A1111's settings of samplers; those that a sampler does not have are without effect on it.

    eta: share of the noise that is added again, None: 1, for DDIM 0. s_churn, s_tmin, s_tmax (0: no limit), s_noise:
    of Karras et al. 2206.00364, algorithm 2. discard: always leave out the level before the last. exact_steps: image to
    image does as many steps as asked for. cfg_rescale: phi of Lin et al. 2305.08891, section 3.4. one_by_one: on a CPU
    the network is asked for each picture of a batch by itself, since convolutions and matrix products round
    otherwise in batches of other sizes: a batch then equals its pictures drawn alone, to the bit.
    """

    eta: float | None = None
    s_churn: float = 0.0
    s_tmin: float = 0.0
    s_tmax: float = 0.0
    s_noise: float = 1.0
    discard: bool = False
    exact_steps: bool = False
    cfg_rescale: float = 0.0
    one_by_one: bool = False
    noise: NoiseOptions = field(default_factory=NoiseOptions)

    def of(self, kind: SamplerKind) -> dict[str, Any]:
        """Those that a sampler has."""
        values: dict[str, Any] = {
            "s_churn": self.s_churn,
            "s_tmin": self.s_tmin,
            "s_tmax": self.s_tmax or math.inf,
            "s_noise": self.s_noise,
            **({} if self.eta is None else {"eta": self.eta}),
        }
        return {**{key: value for key, value in values.items() if kind.takes(key)}, **kind.options}


def check_size(base: BaseModel, width: int, height: int) -> None:
    """Sides must be whole numbers of latent cells. A UNet halves odd ones up and cuts them on the way back."""
    unit = base.spec.size_multiple
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
    options: SamplingOptions | None = None,
    model: Denoiser | None = None,
    on_denoised: OnDenoised | None = None,
    takeover: Takeover | None = None,
    on_step: OnStep = no_report,
    callback: Step | None = None,
) -> Tensor:
    """Latents (B, C, h, w), float32, unit-scaled, one per seed; B rows in each conditioning.

    Every picture has its own source of noise, so a batch equals its pictures made one by one, but for rounding (see
    `SamplingOptions.one_by_one`). init_latents: begin from
    these instead of pure noise (image to image); of the steps then as many are run as `image_steps` says. model: what
    predicts in the base's place; takeover: who goes on at low noise. on_denoised(x0, sigma) -> x0 may change every
    answer of the denoiser. on_step(i, x0) follows step i, callback(done, of) each call of the denoiser.
    """
    check_size(base, width, height)
    options = options or SamplingOptions()
    sampler = suited(sampler, base.scheduler_config)
    kind = kind_of(sampler)
    levels = kind.levels(NoiseLevels.from_config(base.scheduler_config, base.spec.name == "sdxl"))
    way = _steps(sampler, steps, levels, options, None if init_latents is None else denoising_strength)
    if init_latents is not None and (denoising_strength == 0 or len(way.sigmas) < 2):
        return init_latents.float()
    shape = base.spec.latent_channels, height // base.spec.latent_factor, width // base.spec.latent_factor
    noise = ImageNoise(seeds, shape, base.device, options.noise)
    x = _begun(kind, levels, way, noise.first(), init_latents)
    chosen = options.of(kind)
    total = count_calls(kind, way.sigmas, chosen)
    denoiser = GuidedDenoiser(
        model or base, levels, cond, uncond, cfg_scale * kind.guidance, on_denoised, options.cfg_rescale,
        options.one_by_one, takeover,
    )  # fmt: skip
    denoiser.step = way.done_before + 1
    if callback is not None:
        denoiser.on_call = lambda calls: callback(calls, total)

    def report(i: int, x0: Tensor) -> None:
        denoiser.step = min(way.done_before + i + 2, steps)
        on_step(i, x0)

    if kind.takes("noise"):
        white: Noise = noise.next
        chosen["noise"] = BrownianNoise(way.every, shape, seeds, base.device, noise.randn) if kind.brownian else white
    x = kind.run(denoiser, x, way.sigmas, on_step=report, **chosen)
    return at_scale_of_network(x, way.sigmas[-1]) if kind.by_timesteps else x


def _steps(
    sampler: str, steps: int, levels: NoiseLevels, options: SamplingOptions, denoising_strength: float | None
) -> Steps:
    """The levels to step through, from noise (None) or from a picture."""
    t_enc = None
    if denoising_strength is not None:
        steps, t_enc = encoded_steps(steps, denoising_strength, options.exact_steps)
    return kind_of(sampler).steps(named_schedule(sampler), steps, levels, t_enc, options.discard)


def _begun(kind: SamplerKind, levels: NoiseLevels, way: Steps, noise: Tensor, clean: Tensor | None) -> Tensor:
    """What the steps begin with, at the samplers' scale: noise alone, or a picture's latents with noise."""
    first = way.sigmas[0]
    if not kind.by_timesteps:
        return noise * first if clean is None else levels.noised(clean.to(noise), noise, first)
    if clean is None:
        return at_scale_of_samplers(noise, first)
    x_t = at_scale_of_network(levels.noised(clean.to(noise), noise, way.noised), way.noised)
    return at_scale_of_samplers(x_t, first)


class _Counter:
    """A denoiser that only counts."""

    calls = 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        return x

    def both(self, x: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
        return self(x, sigma), x


def count_calls(kind: SamplerKind, sigmas: Sequence[float], options: dict[str, Any]) -> int:
    """How often a sampler asks the denoiser on its way through the levels."""
    counter, nothing = _Counter(), torch.zeros(1, 1, 1, 1)
    noise = {"noise": lambda sigma, sigma_next: nothing} if kind.takes("noise") else {}
    kind.run(counter, nothing, sigmas, **noise, **options)
    return counter.calls
