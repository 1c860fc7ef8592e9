"""Usual values of training by family, and what a base must be to be trained. Nothing here needs torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.channels import INPAINTING_CHANNELS, LATENT_CHANNELS
from ..errors import MaquetteError


@dataclass(frozen=True)
class Recipe:
    """Defaults of a family. A run shows every photo `views_per_photo` times, `fewest` to `most` pictures in all."""

    views_per_photo: int
    fewest: int
    most: int
    learning_rate: float  # for `batch_size` pictures per step
    batch_size: int
    batch_size_cuda: int
    cfg_scale: float
    buckets: bool
    embedding_learning_rate: float
    model_learning_rate: float  # of a whole model, for `batch_size` pictures per step


# Pocket: 300 steps of 8 for 14 photos, measured with its prototype. Stable Diffusion: about 110 views of each photo and
# 1e-4 at batch 1, the middle of what the widely used presets do for alpha = rank.
POCKET = Recipe(171, 1600, 4800, 2e-3, 8, 8, 4.0, buckets=False, embedding_learning_rate=1e-2, model_learning_rate=5e-4)
STABLE_DIFFUSION = Recipe(
    110, 700, 4000, 1e-4, 1, 4, 7.0, buckets=True, embedding_learning_rate=2e-3, model_learning_rate=5e-6
)


def require_channels(base: str, channels: int, latent: int = LATENT_CHANNELS) -> None:
    """Raise MaquetteError for a base that takes what training has not: pictures to edit, or depth."""
    if channels not in (latent, INPAINTING_CHANNELS):
        raise MaquetteError(
            f"{base} takes {channels} channels (an editing or depth model), which training cannot feed; "
            "train on the ordinary base: its LoRA works on that model too."
        )


def default_steps(family: Recipe, photos: int, batch_size: int) -> int:
    """Steps for so many photos when the user names neither steps nor epochs."""
    pictures = family.views_per_photo * photos
    return math.ceil(min(max(pictures, family.fewest), family.most) / batch_size)
