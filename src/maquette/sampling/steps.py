"""Which levels a drawing steps through: all of them from noise, or the last ones from a picture, counted as A1111."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .levels import NoiseLevels
from .schedules import SCHEDULES, linspace, uniform

LARGEST_STRENGTH = 0.999


@dataclass(frozen=True)
class Steps:
    """sigmas: the levels of the steps to do; every: also of those left out; done_before: how many steps those are.

    noised: the level of noise that a picture to begin from gets, for the timestep samplers not quite the first.
    """

    sigmas: Sequence[float]
    every: Sequence[float]
    done_before: int
    noised: float


def encoded_steps(steps: int, denoising_strength: float, exact: bool = False) -> tuple[int, int]:
    """(steps of the schedule, t_enc) of image to image: floor(min(strength, 0.999) x steps) are done by DDIM.

    exact: the schedule is lengthened until one more than t_enc is the number of steps asked for, as A1111's hires fix
    does, and image to image with its option "do exactly the amount of steps the slider specifies".
    """
    strength = min(denoising_strength, LARGEST_STRENGTH)
    if exact and strength > 0:
        return int(steps / strength), steps - 1
    return steps, int(strength * steps)


def sigma_steps(
    schedule: str | None, steps: int, levels: NoiseLevels, t_enc: int | None = None, discard: bool = False
) -> Steps:
    """For samplers of k-diffusion. From a picture t_enc + 1 steps are done.

    schedule: of SCHEDULES, None: Uniform. discard: make one more step and leave out the level before the last.
    """
    every = SCHEDULES.get(schedule or "", uniform)(steps + 1 if discard else steps, levels)
    if discard:
        every = [*every[:-2], every[-1]]
    first = 0 if t_enc is None else max(0, steps - t_enc - 1)
    return Steps(every[first:], every, first, every[first])


def timestep_steps(steps: int, levels: NoiseLevels, t_enc: int | None = None, discard: bool = False) -> Steps:
    """For DDIM, PLMS and relatives. From a picture t_enc steps are done, beginning with the noise of the one before.

    Where A1111's timesteps are more than the steps, the highest lead and the last is what the drawing ends at.
    """
    places = levels.timesteps(steps + 1 if discard else steps)
    sigmas = [levels.sigmas[t] for t in places]
    if t_enc is None:
        every = sigmas if len(sigmas) > steps else [*sigmas, levels.last]
        return Steps(every, every, 0, every[0])
    first = max(0, len(sigmas) - t_enc)
    every = [*sigmas, levels.last]
    return Steps(every[first:], every, first, every[max(0, first - 1)])


def unipc_steps(steps: int, levels: NoiseLevels, t_enc: int | None = None, discard: bool = False) -> Steps:
    """For UniPC: as many as the base's timesteps, equally far apart, from T - 1 or the picture's timestep to 0."""
    places = levels.timesteps(steps + 1 if discard else steps)
    if t_enc is None:
        every = [levels.t_to_sigma(t) for t in linspace(len(levels.sigmas) - 1, 0, len(places) + 1)]
        return Steps(every, every, 0, every[0])
    first = max(0, len(places) - t_enc)
    if first == len(places):
        return Steps([levels.sigma_min], [levels.sigma_min], first, levels.sigma_min)
    way = [levels.t_to_sigma(t) for t in linspace(places[first], 0, len(places) - first + 1)]
    return Steps(way, way, first, levels.sigmas[places[max(0, first - 1)]])


def at_scale_of_network(x: Tensor, sigma: float) -> Tensor:
    """x0 + sigma n -> sqrt(abar) x0 + sqrt(1 - abar) n."""
    return x / math.sqrt(sigma * sigma + 1.0)


def at_scale_of_samplers(x_t: Tensor, sigma: float) -> Tensor:
    """The other way round."""
    return x_t * math.sqrt(sigma * sigma + 1.0)
