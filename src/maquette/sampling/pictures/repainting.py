"""A picture of which a part is painted anew: cut out before, pasted back after, so that all else keeps its bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .fitting import ResizeMode, fitted
from .masks import blurred, box_of, surroundings

if TYPE_CHECKING:
    from PIL.Image import Image

Content = Literal["fill", "original", "latent noise", "latent nothing"]
"""A1111's "Masked content": what drawing begins from where the mask is white."""


@dataclass(frozen=True)
class Repainting:
    """picture (RGB) and mask (L) at the size of drawing; whole: the picture that the result is put into, at its own
    size, through `overlay` (L, 255 = of the result alone, 0 = untouched); box: the part of it that is drawn.
    """

    picture: Image
    mask: Image
    whole: Image
    overlay: Image
    box: tuple[int, int, int, int] | None = None

    def pasted(self, drawn: Image) -> Image:
        """The whole picture with what was drawn in its place. Pixels where `overlay` is 0 keep their bytes."""
        from PIL import Image

        if self.box is None:
            return Image.composite(drawn, self.whole, self.overlay)
        left, top, right, bottom = self.box
        result = self.whole.copy()
        result.paste(fitted(drawn, right - left, bottom - top, "crop"), (left, top))
        return Image.composite(result, self.whole, self.overlay)


def repainting(
    picture: Image,
    mask: Image,
    width: int,
    height: int,
    *,
    resize_mode: ResizeMode = "just",
    blur: float = 4,
    content: Content = "original",
    only_masked: bool = False,
    padding: int = 32,
) -> Repainting:
    """Prepare a picture (RGB) and its mask (L, 255 = painted anew, of the same size) for drawing at width x height.

    only_masked: just the masked part, with padding, is drawn at that size and scaled back; else the whole picture.
    """
    mask = blurred(mask, blur)
    if only_masked:
        box = box_of(mask, padding, width, height)
        whole, overlay = picture, mask
        picture, mask = (fitted(each.crop(box), width, height, "fill") for each in (picture, mask))
    else:
        box = None
        mode: ResizeMode = "just" if resize_mode == "latent" else resize_mode
        whole = picture = fitted(picture, width, height, mode)
        mask = fitted(mask, width, height, mode)
        overlay = mask.point([min(255, 2 * value) for value in range(256)])
    if content != "original":
        picture = surroundings(picture, mask)
    return Repainting(picture, mask, whole, overlay, box)
