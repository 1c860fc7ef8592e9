"""Facts about Stable Diffusion XL (the base model; its refiner is in `refiner`)."""

from __future__ import annotations

from ..base import FamilySpec

SDXL = FamilySpec(
    "sdxl",
    "sdxl_base_v1-0",
    "stable-diffusion-xl-v1-base",
    native_size=1024,
    latent_factor=8,
    text_parts=("te1", "te2"),
    clip_skip=False,
    zero_negative=True,
)
