"""Pictures made larger by an upscaler's network, in overlapping parts, as A1111's hires fix does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..families.upscaler import Upscaler
from .control import pixels_of
from .tiled_vae import by_tiles

if TYPE_CHECKING:
    from PIL.Image import Image

TILE, OVERLAP = 192, 16  # pixels
_MOST = 3  # times that a network is used one after the other


@torch.no_grad()
def upscaled(upscaler: Upscaler, picture: Image, width: int, height: int) -> Image:
    """A picture (RGB) at a size: enlarged until it is at least as large, up to three times, then resized (Lanczos)."""
    from PIL.Image import Resampling, fromarray

    weight = next(upscaler.module.parameters())
    for _ in range(_MOST):
        if upscaler.scale == 1 or (picture.width >= width and picture.height >= height):
            break
        pixels = pixels_of(picture).to(weight.device, weight.dtype)
        made = by_tiles(upscaler.module, pixels, TILE, OVERLAP, upscaler.scale, up=True)
        rounded = (made[0].float().clamp(0, 1) * 255).round().to(torch.uint8)
        picture = fromarray(rounded.permute(1, 2, 0).cpu().numpy())
    return picture if picture.size == (width, height) else picture.resize((width, height), Resampling.LANCZOS)
