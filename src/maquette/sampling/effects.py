"""Options of a drawing that would change nothing, because what they are about is not asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .draw_settings import DrawSettings

_HIRES = (
    "hires_upscaler", "hires_steps", "hires_schedule_type", "hires_sampler", "hires_cfg_scale", "hires_prompt",
    "hires_negative_prompt",
)  # fmt: skip


def without_effect(settings: DrawSettings) -> str | None:
    """A sentence on the first option that has another value than its usual one and no effect; None where all have."""
    begun, masked = settings.init_image is not None, bool(settings.mask or settings.extend)
    needs = [
        (settings.hires, _HIRES, "is of a second drawing: give hires_scale or a hires size"),
        (begun, ("exact_steps", "resize_mode"), "needs a picture to begin from: give init_image"),
        (begun or settings.hires, ("denoising_strength",), "needs init_image or hires fix (hires_scale)"),
        (masked, ("mask_blur", "masked_content"), "needs a mask: give mask or extend"),
        (bool(settings.mask), ("mask_invert",), "needs a mask: give mask"),
        (settings.only_masked, ("mask_padding",), "needs only_masked"),
        (settings.refiner is not None, ("refiner_switch_at",), "needs a refiner: give refiner"),
    ]
    for met, keys, sentence in needs:
        for key in keys:
            if not met and getattr(settings, key) not in (type(settings).model_fields[key].default, ""):
                return f"{key} {sentence}"
    return None
