"""Pictures that look like photos to whoever measures sharpness and likeness."""

from __future__ import annotations

import numpy as np
from PIL import Image


def scene(seed: int, width: int = 600, height: int = 600) -> Image.Image:
    """Sharp random shapes: every seed another picture."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (width, height), tuple(int(x) for x in random.integers(60, 200, 3)))
    for _ in range(25):
        x, y = random.integers(0, [width, height])
        w, h = random.integers(30, 200, 2)
        image.paste(tuple(int(v) for v in random.integers(0, 255, 3)), (int(x), int(y), int(x + w), int(y + h)))
    return image
