"""Samplers and schedules by A1111's names. The next one is a function in `maquette.sampling` and a line here."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..errors import MaquetteError
from . import samplers_ode as ode
from . import samplers_sde as sde
from . import samplers_timesteps as by_time
from .levels import LcmLevels, NoiseLevels
from .schedules import AUTOMATIC, SCHEDULES
from .steps import Steps, encoded_steps, sigma_steps, timestep_steps, unipc_steps

_CFG_PP = 1 / 12.5  # A1111's guidance scale 12.5 is CFG++'s 1


@dataclass(frozen=True)
class SamplerKind:
    """A sampler and what A1111 does with it.

    automatic: the schedule it has since A1111 1.9 when none is named; None: Uniform, which infotext calls Automatic.
    calls: of the denoiser in a step, by which A1111 lengthens prompt schedules. timesteps: set for samplers that step
    through a base's timesteps whatever the schedule. discard: the level before the last is left out. brownian: its
    noise is a Brownian motion. guidance: factor of the guidance scale.
    flow: fit for rectified flow, whose ODE dx / dsigma = (x - x0) / sigma is that of x0 + sigma n; what adds noise or
    scales by sqrt(abar) is not.
    """

    run: Callable[..., Tensor]
    automatic: str | None = None
    calls: int = 1
    timesteps: Callable[..., Steps] | None = None
    discard: bool = False
    brownian: bool = False
    guidance: float = 1.0
    levels: Callable[[NoiseLevels], NoiseLevels] = lambda levels: levels
    flow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_timesteps(self) -> bool:
        return self.timesteps is not None

    @property
    def usual_eta(self) -> float:
        """Share of noise at each step where none is asked for, of samplers that take eta."""
        return 0.0 if self.by_timesteps else 1.0

    def takes(self, option: str) -> bool:
        """Whether the sampler has an option: noise, eta, s_churn …"""
        return option in inspect.signature(self.run).parameters

    def steps(
        self, schedule: str | None, steps: int, levels: NoiseLevels, t_enc: int | None = None, discard: bool = False
    ) -> Steps:
        """The levels to step through; see `steps`."""
        if self.timesteps is not None:
            return self.timesteps(steps, levels, t_enc, discard)
        return sigma_steps(schedule or self.automatic, steps, levels, t_enc, discard or self.discard)


SAMPLERS = {
    "DDIM": SamplerKind(by_time.sample_ddim, timesteps=timestep_steps),
    "Euler": SamplerKind(ode.sample_euler, flow=True),
    "Euler a": SamplerKind(sde.sample_euler_ancestral),
    "Heun": SamplerKind(ode.sample_heun, calls=2, flow=True),
    "LMS": SamplerKind(ode.sample_lms, flow=True),
    "DPM2": SamplerKind(ode.sample_dpm_2, "Karras", calls=2, discard=True, flow=True),
    "DPM2 a": SamplerKind(sde.sample_dpm_2_ancestral, "Karras", calls=2, discard=True),
    "DPM++ 2M": SamplerKind(ode.sample_dpmpp_2m, "Karras", flow=True),
    "DPM++ 2M SDE": SamplerKind(sde.sample_dpmpp_2m_sde, "Exponential", brownian=True),
    "DPM++ 2M SDE Heun": SamplerKind(
        sde.sample_dpmpp_2m_sde, "Exponential", brownian=True, options={"solver_type": "heun"}
    ),
    "DPM++ SDE": SamplerKind(sde.sample_dpmpp_sde, "Karras", calls=2, brownian=True),
    "DPM++ 2S a": SamplerKind(sde.sample_dpmpp_2s_ancestral, "Karras", calls=2),
    "DPM++ 3M SDE": SamplerKind(sde.sample_dpmpp_3m_sde, "Exponential", discard=True, brownian=True),
    "UniPC": SamplerKind(by_time.sample_unipc, timesteps=unipc_steps),
    "DDIM CFG++": SamplerKind(by_time.sample_ddim_cfgpp, timesteps=timestep_steps, guidance=_CFG_PP),
    "PLMS": SamplerKind(by_time.sample_plms, timesteps=timestep_steps),
    "LCM": SamplerKind(sde.sample_lcm, levels=LcmLevels.of),
    "Restart": SamplerKind(sde.sample_restart, "Karras", calls=2),
}


def find_sampler(name: str, schedule_type: str = AUTOMATIC) -> str:
    """The sampler's name in its usual spelling, with its schedule behind it where one was named.

    "dpm++ 2m karras" (as before A1111 1.9) and "DPM++ 2M" with "Karras" give "DPM++ 2M Karras"; "DPM++ 2M" alone stays
    so and means the same. Raises MaquetteError with the list for an unknown one, and for two schedules.
    """
    kind, inside = _parted(name)
    named = _schedule(schedule_type)
    if inside and named and inside != named:
        raise MaquetteError(f"The sampler {name!r} has the schedule {inside} in its name, and {named} was asked for.")
    schedule = named or inside
    return kind if schedule is None else f"{kind} {schedule}"


def schedule_of(sampler: str) -> tuple[str, str]:
    """(name, A1111's "Schedule type") of a sampler, both as infotext has them."""
    kind, schedule = _parted(sampler)
    return kind, schedule or SAMPLERS[kind].automatic or AUTOMATIC


def schedule_notice(sampler: str) -> str | None:
    """A sentence for the user where the schedule that was named changes nothing, or does not suit the sampler."""
    kind, schedule = _parted(sampler)
    if schedule == "Beta" and SAMPLERS[kind].automatic == "Exponential":
        return (
            f"{kind} reaches too far over Beta's large last steps: take Exponential, its usual schedule, or 30 steps."
        )
    if schedule is None or not SAMPLERS[kind].by_timesteps:
        return None
    return f"{kind} steps through the base's own timesteps, here as in A1111: the schedule {schedule} has no effect."


def image_steps(sampler: str, steps: int, denoising_strength: float) -> int:
    """How many of the steps image to image does, as A1111 counts them; at strength 0 none, so that the picture stays.

    floor(min(strength, 0.999) x steps), and one more with the samplers of k-diffusion.
    """
    if denoising_strength == 0:
        return 0
    t_enc = encoded_steps(steps, denoising_strength)[1]
    return t_enc if kind_of(sampler).by_timesteps else t_enc + 1


def kind_of(sampler: str) -> SamplerKind:
    """The facts about a sampler, whatever its schedule."""
    return SAMPLERS[_parted(sampler)[0]]


def suited(sampler: str, scheduler_config: Mapping[str, Any]) -> str:
    """The sampler itself; for a base that predicts flow Euler instead of DDIM, which is Euler's method there, and
    equal steps in time where no schedule is named. Raises MaquetteError where a flow has no use for it.
    """
    if scheduler_config.get("prediction_type") != "flow":
        return sampler
    kind, schedule = _parted(sampler)
    kind = "Euler" if kind == "DDIM" else kind
    if not SAMPLERS[kind].flow:
        fit = ", ".join(name for name, known in SAMPLERS.items() if known.flow)
        raise MaquetteError(f"{kind} does not fit a base that predicts flow; these do: {fit}.")
    return f"{kind} {schedule or 'Normal'}"


def named_schedule(sampler: str) -> str | None:
    """The schedule in a sampler's name, None where it is the automatic one."""
    return _parted(sampler)[1]


def _parted(name: str) -> tuple[str, str | None]:
    """A sampler's name and the schedule in it, if any. Raises MaquetteError for an unknown one."""
    key = " ".join(name.split()).lower()
    for known in SAMPLERS:
        if key == known.lower():
            return known, None
    for known in sorted(SAMPLERS, key=len, reverse=True):
        if key.startswith(f"{known.lower()} "):
            rest = key.removeprefix(f"{known.lower()} ")
            for schedule in (AUTOMATIC, *SCHEDULES):
                if rest == schedule.lower():
                    return known, None if schedule == AUTOMATIC else schedule
    joined = [f"{known} {schedule}" for known in SAMPLERS for schedule in SCHEDULES]
    near = difflib.get_close_matches(name, [*SAMPLERS, *joined], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MaquetteError(f"There is no sampler called {name!r}.{hint} Samplers: {', '.join(SAMPLERS)}.")


def _schedule(name: str) -> str | None:
    """A schedule in its usual spelling, None for the automatic one. Raises MaquetteError with the list."""
    for known in (AUTOMATIC, *SCHEDULES):
        if name.strip().lower() == known.lower():
            return None if known == AUTOMATIC else known
    raise MaquetteError(f"There is no schedule type {name!r}; give {', '.join((AUTOMATIC, *SCHEDULES))}.")
