"""Samplers by A1111's names, as diffusers schedulers built from a base's own schedule."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from ..errors import MaquetteError
from ..families.quick_import import prepare

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


@dataclass(frozen=True)
class SamplerKind:
    """A diffusers scheduler with its options; schedule: A1111's "Schedule type", None for the sampler's own."""

    scheduler: str
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def schedule(self) -> str | None:
        if self.options.get("use_karras_sigmas"):
            return "Karras"
        # Unless told, A1111 takes Karras or Exponential for these.
        return "Uniform" if "DPM" in self.scheduler else None


SAMPLERS = {
    "DDIM": SamplerKind("DDIMScheduler"),
    "Euler": SamplerKind("EulerDiscreteScheduler"),
    "Euler a": SamplerKind("EulerAncestralDiscreteScheduler"),
    "Heun": SamplerKind("HeunDiscreteScheduler"),
    "LMS": SamplerKind("LMSDiscreteScheduler"),
    "LMS Karras": SamplerKind("LMSDiscreteScheduler", {"use_karras_sigmas": True}),
    "DPM2": SamplerKind("KDPM2DiscreteScheduler"),
    "DPM2 Karras": SamplerKind("KDPM2DiscreteScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M": SamplerKind("DPMSolverMultistepScheduler"),
    "DPM++ 2M Karras": SamplerKind("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": SamplerKind("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M SDE Karras": SamplerKind(
        "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
    ),
    "UniPC": SamplerKind("UniPCMultistepScheduler"),
}


def find_sampler(name: str) -> str:
    """The sampler's name in its usual spelling. Raises MaquetteError with the list for an unknown one."""
    for known in SAMPLERS:
        if known.lower() == name.strip().lower():
            return known
    near = difflib.get_close_matches(name, SAMPLERS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MaquetteError(f"There is no sampler called {name!r}.{hint} Samplers: {', '.join(SAMPLERS)}.")


def scheduler_for(name: str, config: dict[str, Any]) -> Any:
    """A fresh diffusers scheduler with the betas, prediction type and spacing of a base's scheduler config."""
    kind = SAMPLERS[find_sampler(name)]
    prepare()
    module = import_module(f"diffusers.schedulers.{_MODULES[kind.scheduler]}")
    keys = _SHARED + (_DDIM_ONLY if kind.scheduler == "DDIMScheduler" else ())
    known = {key: config[key] for key in keys if key in config}
    return getattr(module, kind.scheduler).from_config({**known, **kind.options})
