"""Masks of inpainting, as A1111 reads them: white is painted anew, black stays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.images import OpenedPhoto, read_photo
from ...errors import MaquetteError

if TYPE_CHECKING:
    from PIL.Image import Image

TRANSPARENCY = "transparency"  # instead of a mask's file: what is transparent in the picture is painted anew
_HALF = 128
_REACH = 2.5  # of the blur, in its standard deviations


def read_mask(mask: str, photo: OpenedPhoto, name: str, invert: bool = False) -> Image:
    """The mask (mode L, 255 = painted anew) of an opened picture called `name`: a file, or "transparency".

    A mask's file is read by its transparency where it has any (opaque = painted anew), as A1111 does, else by its
    brightness. Raises MaquetteError for a mask of another size, one without a white pixel, and a picture without
    transparency.
    """
    from PIL import ImageOps

    if mask == TRANSPARENCY:
        if photo.alpha is None:
            raise MaquetteError(f"{name} has no transparent part to paint anew; give a mask's file with --mask.")
        found = _rounded(ImageOps.invert(photo.alpha))
    else:
        opened = read_photo(Path(mask))
        found = opened.image.convert("L") if opened.alpha is None else _rounded(opened.alpha)
        if found.size != photo.image.size:
            raise MaquetteError(
                f"{mask} is a mask of {_size(found)} pixels and {name} has {_size(photo.image)}: save the mask in the "
                "picture's size."
            )
    if invert:
        found = ImageOps.invert(found)
    if found.getbbox() is None:
        raise MaquetteError(
            f"The mask {mask} of {name} marks no pixel: what shall be painted anew is white (with mask_invert, black)."
        )
    return found


def blurred(mask: Image, sigma: float) -> Image:
    """A Gaussian blur of so many pixels' standard deviation, cut off at 2.5 of them; borders are mirrored."""
    import numpy as np
    from PIL import Image

    if sigma <= 0:
        return mask
    reach = int(_REACH * sigma + 0.5)
    x = np.arange(-reach, reach + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    pixels: Any = np.asarray(mask, np.float64)
    for axis in (1, 0):
        pixels = _convolved(pixels, kernel / kernel.sum(), axis)
    return Image.fromarray((pixels + 0.5).clip(0, 255).astype(np.uint8))


def box_of(mask: Image, padding: int, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) around what the mask marks, with padding, widened to the shape of width x height as
    far as the picture reaches ("Inpaint area: Only masked").
    """
    marked = mask.getbbox()
    assert marked is not None  # `read_mask` refuses such a mask
    left, top = max(marked[0] - padding, 0), max(marked[1] - padding, 0)
    right, bottom = min(marked[2] + padding, mask.width), min(marked[3] + padding, mask.height)
    if (right - left) * height > (bottom - top) * width:
        top, bottom = _widened(top, bottom, (right - left) * height / width, mask.height)
    else:
        left, right = _widened(left, right, (bottom - top) * width / height, mask.width)
    return left, top, right, bottom


def surroundings(picture: Image, mask: Image) -> Image:
    """The picture (RGB) with what the mask marks painted over by the colours around it ("Masked content: fill").

    What stays is blurred, wide to narrow, and laid one over the other, itself last.
    """
    from PIL import Image, ImageFilter, ImageOps

    kept = Image.new("RGBa", picture.size)
    kept.paste(picture.convert("RGBA").convert("RGBa"), mask=ImageOps.invert(mask))
    laid = Image.new("RGBA", picture.size)
    for radius, times in ((256, 1), (64, 1), (16, 2), (4, 4), (2, 2), (0, 1)):
        layer = kept.filter(ImageFilter.GaussianBlur(radius)).convert("RGBA")
        for _ in range(times):
            laid.alpha_composite(layer)
    return laid.convert("RGB")


def _convolved(pixels: Any, kernel: Any, axis: int) -> Any:
    """Along an axis; sides are mirrored about their outermost pixel."""
    import numpy as np

    reach, length = len(kernel) // 2, pixels.shape[axis]
    index = np.abs(np.arange(-reach, length + reach))
    period = max(1, 2 * (length - 1))
    index = np.minimum(index % period, period - index % period) if length > 1 else 0 * index
    wide = np.take(pixels, index, axis)
    return sum(k * np.take(wide, range(i, i + length), axis) for i, k in enumerate(kernel))


def _widened(first: int, last: int, length: float, limit: int) -> tuple[int, int]:
    more = int(length - (last - first))
    first, last = first - more // 2, last + more - more // 2
    over = max(0, last - limit)
    first, last = first - over, last - over
    under = max(0, -first)
    return first + under, min(last + under, limit)


def _rounded(alpha: Image) -> Image:
    return alpha.point(_steps())


def _steps() -> list[int]:
    return [255 if value > _HALF else 0 for value in range(256)]


def _size(picture: Image) -> str:
    return f"{picture.width} x {picture.height}"
