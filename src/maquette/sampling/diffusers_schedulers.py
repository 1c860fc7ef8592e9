"""Samplers by A1111's names, as diffusers schedulers built from a base's own schedule."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import sys
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import MaquetteError

_MODULES = {
    "DDIMScheduler": "scheduling_ddim",
    "EulerDiscreteScheduler": "scheduling_euler_discrete",
    "EulerAncestralDiscreteScheduler": "scheduling_euler_ancestral_discrete",
    "HeunDiscreteScheduler": "scheduling_heun_discrete",
    "KDPM2DiscreteScheduler": "scheduling_k_dpm_2_discrete",
    "LMSDiscreteScheduler": "scheduling_lms_discrete",
    "DPMSolverMultistepScheduler": "scheduling_dpmsolver_multistep",
    "DPMSolverSinglestepScheduler": "scheduling_dpmsolver_singlestep",
    "UniPCMultistepScheduler": "scheduling_unipc_multistep",
}
_SHARED = (
    "num_train_timesteps", "beta_schedule", "beta_start", "beta_end", "trained_betas", "prediction_type",
    "timestep_spacing", "steps_offset", "rescale_betas_zero_snr",
)  # fmt: skip
_DDIM_ONLY = ("clip_sample", "clip_sample_range", "set_alpha_to_one", "thresholding")


SCHEDULES = ("Uniform", "Karras", "Exponential")
AUTOMATIC = "Automatic"  # the schedule that suits the sampler
_SIGMAS = {"Karras": "use_karras_sigmas", "Exponential": "use_exponential_sigmas"}
_LARGEST_STRENGTH = 0.999


@dataclass(frozen=True)
class SamplerKind:
    """A diffusers scheduler with its options.

    automatic: the schedule it has in A1111 since 1.9 when none is named; None: the base's own, which is A1111's too.
    schedules: those that can be named. calls: of the denoiser in a step. by_timesteps: A1111 steps through a base's
    timesteps and not through k-diffusion's sigmas, so that image to image has one step less.
    """

    scheduler: str
    options: dict[str, Any] = field(default_factory=dict)
    automatic: str | None = None
    schedules: tuple[str, ...] = SCHEDULES
    calls: int = 1
    by_timesteps: bool = False


SAMPLERS = {
    "DDIM": SamplerKind("DDIMScheduler", schedules=(), by_timesteps=True),
    "Euler": SamplerKind("EulerDiscreteScheduler"),
    "Euler a": SamplerKind("EulerAncestralDiscreteScheduler", schedules=("Uniform",)),
    "Heun": SamplerKind("HeunDiscreteScheduler", calls=2),
    "LMS": SamplerKind("LMSDiscreteScheduler"),
    "DPM2": SamplerKind("KDPM2DiscreteScheduler", automatic="Karras", calls=2),
    "DPM++ 2M": SamplerKind("DPMSolverMultistepScheduler", automatic="Karras"),
    "DPM++ 2M SDE": SamplerKind(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, automatic="Exponential"
    ),
    "UniPC": SamplerKind("UniPCMultistepScheduler", schedules=(), by_timesteps=True),
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
    if schedule is None:
        return kind
    if schedule not in SAMPLERS[kind].schedules:
        can = " or ".join((AUTOMATIC, *SAMPLERS[kind].schedules))
        raise MaquetteError(f"The sampler {kind} has no schedule {schedule} here; leave it out, or give {can}.")
    return f"{kind} {schedule}"


def schedule_of(sampler: str) -> tuple[str, str | None]:
    """(name, A1111's "Schedule type") of a sampler, both as infotext has them; None is the base's own schedule."""
    kind, schedule = _parted(sampler)
    return kind, schedule or SAMPLERS[kind].automatic


def image_steps(sampler: str, steps: int, denoising_strength: float) -> int:
    """How many of the steps image to image does, as A1111 counts them; at strength 0 none, so that the picture stays.

    floor(min(strength, 0.999) x steps), and one more with the samplers of k-diffusion.
    """
    if denoising_strength == 0:
        return 0
    done = int(min(denoising_strength, _LARGEST_STRENGTH) * steps)
    return done if kind_of(sampler).by_timesteps else done + 1


def kind_of(sampler: str) -> SamplerKind:
    """The facts about a sampler, whatever its schedule."""
    return SAMPLERS[_parted(sampler)[0]]


def scheduler_for(name: str, config: dict[str, Any]) -> Any:
    """A fresh diffusers scheduler with the betas, prediction type and spacing of a base's scheduler config."""
    kind, schedule = SAMPLERS[_parted(name)[0]], schedule_of(find_sampler(name))[1]
    _put_off_scipy()
    scheduler = getattr(import_module(f"diffusers.schedulers.{_MODULES[kind.scheduler]}"), kind.scheduler)
    keys = _SHARED + (_DDIM_ONLY if kind.scheduler == "DDIMScheduler" else ())
    known = {key: config[key] for key in keys if key in config}
    sigmas = {_SIGMAS[schedule]: True} if schedule in _SIGMAS else {}
    takes = inspect.signature(scheduler).parameters
    # not its from_config, which imports all schedulers there are
    return scheduler(**{key: value for key, value in {**known, **kind.options, **sigmas}.items() if key in takes})


class _Later(ModuleType):
    """A module that is made when a name of its own is asked for."""

    def __getattr__(self, name: str) -> Any:
        spec = self.__spec__
        if name.startswith("__") or spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        self.__class__ = ModuleType  # type: ignore[assignment]
        spec.loader.exec_module(self)
        return getattr(self, name)


def _put_off_scipy() -> None:
    """diffusers' schedulers import scipy.stats, a second or two, for an option that is never used here."""
    spec = None if "scipy.stats" in sys.modules else importlib.util.find_spec("scipy.stats")
    if spec is not None:
        made = _Later("scipy.stats")
        made.__spec__, made.__file__, made.__package__ = spec, spec.origin, "scipy.stats"
        made.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["scipy.stats"] = sys.modules["scipy"].stats = made  # type: ignore[attr-defined]


def _parted(name: str) -> tuple[str, str | None]:
    """A sampler's name and the schedule in it, if any. Raises MaquetteError for an unknown one."""
    asked = " ".join(name.split()).lower()
    for known in SAMPLERS:
        if asked == known.lower():
            return known, None
    for known in sorted(SAMPLERS, key=len, reverse=True):
        if asked.startswith(f"{known.lower()} "):
            rest = asked.removeprefix(f"{known.lower()} ")
            for schedule in (AUTOMATIC, *SCHEDULES):
                if rest == schedule.lower():
                    return known, None if schedule == AUTOMATIC else schedule
    joined = [f"{known} {schedule}" for known, kind in SAMPLERS.items() for schedule in kind.schedules]
    near = difflib.get_close_matches(name, [*SAMPLERS, *joined], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MaquetteError(f"There is no sampler called {name!r}.{hint} Samplers: {', '.join(SAMPLERS)}.")


def _schedule(name: str) -> str | None:
    """A schedule in its usual spelling, None for the automatic one. Raises MaquetteError with the list."""
    for known in (AUTOMATIC, *SCHEDULES):
        if name.strip().lower() == known.lower():
            return None if known == AUTOMATIC else known
    raise MaquetteError(f"There is no schedule type {name!r}; give {', '.join((AUTOMATIC, *SCHEDULES))}.")
