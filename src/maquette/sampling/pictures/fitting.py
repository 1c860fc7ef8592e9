"""A picture brought to a size, in A1111's ways ("Resize mode")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from PIL.Image import Image

ResizeMode = Literal["just", "crop", "fill", "latent"]
"""A1111's "Just resize", "Crop and resize", "Resize and fill" and "Just resize (latent upscale)"."""


def fitted(picture: Image, width: int, height: int, mode: ResizeMode = "crop") -> Image:
    """The picture, of any mode, at width x height; a picture of that size comes back as it is.

    just: stretched. crop: covers the size, and its middle is kept. fill: fits into the size, and its outermost rows or
    columns are drawn out to the border. latent: itself, because its latent is what is stretched later.
    """
    if picture.size == (width, height) or mode == "latent":
        return picture
    if mode == "just":
        return _scaled(picture, width, height)
    taller = picture.width * height < picture.height * width  # than the size asked for
    by_width = taller if mode == "crop" else not taller
    w = width if by_width else picture.width * height // picture.height
    h = picture.height * width // picture.width if by_width else height
    scaled = _scaled(picture, max(1, w), max(1, h))
    left, top = width // 2 - scaled.width // 2, height // 2 - scaled.height // 2
    if mode == "crop":
        return scaled.crop((-left, -top, width - left, height - top))
    return drawn_out(scaled, left, top, width - left - scaled.width, height - top - scaled.height)


def drawn_out(picture: Image, left: int, top: int, right: int, bottom: int) -> Image:
    """The picture with so many pixels more on each side, all like the nearest one of its border."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(picture)
    sides = [(top, bottom), (left, right), *[(0, 0)] * (pixels.ndim - 2)]
    return Image.fromarray(np.pad(pixels, sides, mode="edge"), picture.mode)


def _scaled(picture: Image, width: int, height: int) -> Image:
    from PIL.Image import Resampling

    return picture if picture.size == (width, height) else picture.resize((width, height), Resampling.LANCZOS)
