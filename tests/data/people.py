"""Pictures of people that may be used by anyone: scikit-image's portrait by NASA, and small faces of other people."""

from __future__ import annotations

import numpy as np
import skimage.data
from PIL import Image


def woman() -> Image.Image:
    """(512, 512) with one face of about 95 pixels around (215, 117)."""
    return Image.fromarray(skimage.data.astronaut())


def stranger(which: int = 5) -> Image.Image:
    """(512, 512) with another person's face."""
    grey = (skimage.data.lfw_subset()[which] * 255).astype(np.uint8)
    canvas = Image.new("RGB", (512, 512), (120, 120, 120))
    canvas.paste(Image.fromarray(grey).resize((300, 300), Image.Resampling.BICUBIC).convert("RGB"), (100, 100))
    return canvas


def cat() -> Image.Image:
    """Without a person."""
    return Image.fromarray(skimage.data.chelsea())
