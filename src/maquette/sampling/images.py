"""Pictures from what a decoder gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL.Image import Image


def to_image(pixels: torch.Tensor) -> Image:
    """(3, H, W) in [0, 1] -> Pillow image, its numbers cut and not rounded, as A1111 does."""
    from PIL import Image

    return Image.fromarray((pixels * 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy())
