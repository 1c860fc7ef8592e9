"""A1111's names of samplers, schedules and upscalers, without torch, which the tables of `sampling` need."""

from __future__ import annotations

from ...errors import MaquetteError

AUTOMATIC = "Automatic"
# Name -> what k-diffusion's users call it. In the order of `sampling.samplers.SAMPLERS`.
SAMPLERS: dict[str, tuple[str, ...]] = {
    "DDIM": ("ddim",),
    "Euler": ("k_euler",),
    "Euler a": ("k_euler_a", "k_euler_ancestral"),
    "Heun": ("k_heun",),
    "LMS": ("k_lms",),
    "DPM2": ("k_dpm_2",),
    "DPM2 a": ("k_dpm_2_a",),
    "DPM++ 2M": ("k_dpmpp_2m",),
    "DPM++ 2M SDE": ("k_dpmpp_2m_sde",),
    "DPM++ 2M SDE Heun": ("k_dpmpp_2m_sde_heun",),
    "DPM++ SDE": ("k_dpmpp_sde",),
    "DPM++ 2S a": ("k_dpmpp_2s_a",),
    "DPM++ 3M SDE": ("k_dpmpp_3m_sde",),
    "UniPC": ("unipc",),
    "DDIM CFG++": ("ddim_cfgpp",),
    "PLMS": ("plms",),
    "LCM": ("k_lcm",),
    "Restart": ("restart",),
}
# Label -> name, in A1111's order.
SCHEDULES: dict[str, str] = {
    AUTOMATIC: "automatic",
    "Uniform": "uniform",
    "Karras": "karras",
    "Exponential": "exponential",
    "Polyexponential": "polyexponential",
    "SGM Uniform": "sgm_uniform",
    "KL Optimal": "kl_optimal",
    "Align Your Steps": "align_your_steps",
    "Simple": "simple",
    "Normal": "normal",
    "DDIM": "ddim",
    "Beta": "beta",
    "Turbo": "turbo",
}
LATENT_UPSCALERS = (
    "Latent",
    "Latent (antialiased)",
    "Latent (bicubic)",
    "Latent (bicubic antialiased)",
    "Latent (nearest)",
    "Latent (nearest-exact)",
)
UPSCALERS = ("None", "Lanczos", "Nearest")


class UnknownName(MaquetteError):
    """There is no sampler or schedule of that name."""


def sampler_and_schedule(sampler: str, schedule: str) -> tuple[str, str]:
    """Both in their usual spelling. "DPM++ 2M Karras" names both; a schedule that is named apart wins.

    Raises UnknownName.
    """
    wanted = " ".join(sampler.split()).lower()
    label = schedule_label(schedule)
    for name, aliases in SAMPLERS.items():
        if wanted in (name.lower(), *aliases):
            return name, label
    for name, aliases in sorted(SAMPLERS.items(), key=lambda item: -len(item[0])):
        for known in (name.lower(), *aliases):
            for inside, short in SCHEDULES.items():
                if wanted in (f"{known} {inside.lower()}", f"{known}_{short[:2]}", f"{known}_{short}"):
                    return name, inside if label == AUTOMATIC else label
    raise UnknownName("Sampler not found")


def schedule_label(schedule: str) -> str:
    """A schedule's label by its label or name. Raises UnknownName."""
    wanted = " ".join(schedule.split()).lower()
    for label, name in SCHEDULES.items():
        if wanted in (label.lower(), name, ""):
            return label
    raise UnknownName("Scheduler not found")
