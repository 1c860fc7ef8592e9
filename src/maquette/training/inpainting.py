"""What a 9-channel inpainting base is shown besides the noisy latent: which part to repaint, and the photo without it.

Masks are random, a rectangle or an ellipse, and in every fourth draw the whole picture, as the published inpainting
models were trained. Each photo gets a few masks, encoded once: no step needs the VAE.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..core.seeds import seeded
from ..data.dataset import Photo
from ..data.views import View
from ..families.base import BaseModel
from ..sampling.inpainting import extra_channels
from .latents import EncodedPhoto

MASKS = 8  # per photo and mirror image
SMALLEST, LARGEST = 0.25, 0.9  # sides of a masked part, as shares of the picture's


def random_mask(height: int, width: int, random: torch.Generator) -> Tensor:
    """(1, H, W) float32: 1 where the picture is to be repainted, else 0."""
    kind = int(torch.randint(4, (), generator=random))
    if kind == 0:
        return torch.ones(1, height, width)
    share = SMALLEST + (LARGEST - SMALLEST) * torch.rand(2, generator=random)
    half_y, half_x = (share / 2).tolist()
    middle = torch.rand(2, generator=random).tolist()
    y = (torch.arange(height) + 0.5)[:, None] / height - middle[0]
    x = (torch.arange(width) + 0.5)[None, :] / width - middle[1]
    inside = (x / half_x) ** 2 + (y / half_y) ** 2 < 1 if kind == 1 else (x.abs() < half_x) & (y.abs() < half_y)
    result: Tensor = inside.float()[None]
    return result


def masks_of(
    base: BaseModel,
    photos: Sequence[Photo],
    latents: Sequence[Sequence[EncodedPhoto]],
    seed: int,
    on_progress: Callable[[str, int, int], None],
) -> list[list[Tensor]]:
    """For each latent of each photo the channels of MASKS masks, (MASKS, 5, h, w)."""
    found = []
    for i, (photo, encoded) in enumerate(zip(photos, latents, strict=True)):
        on_progress("encoding masked photos", i + 1, len(photos))
        row = []
        for latent in encoded:
            view = latent.view or View.planned(photo)
            picture = view.pixels()
            random = seeded(seed, "mask", photo.name, view.flip, view.crop.left, view.crop.top)
            masks = [random_mask(picture.shape[1], picture.shape[2], random) for _ in range(MASKS)]
            row.append(torch.stack([extra_channels(base, picture, mask) for mask in masks]))
        found.append(row)
    return found
