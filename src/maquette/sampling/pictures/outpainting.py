"""A picture made larger on some sides, with the mask of what is to be drawn there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...errors import MaquetteError
from .fitting import drawn_out

if TYPE_CHECKING:
    from PIL.Image import Image

SIDES = ("left", "top", "right", "bottom")


def read_sides(texts: Sequence[str]) -> dict[str, int]:
    """["left=64", "top=32,right=32"] -> {"left": 64, "top": 32, "right": 32}. Raises MaquetteError for other texts."""
    found: dict[str, int] = {}
    for text in (part.strip() for given in texts for part in given.split(",")):
        side, _, number = text.partition("=")
        if side not in SIDES or not number.isdecimal() or not 0 < int(number) <= 8192:
            raise MaquetteError(
                f"--extend {text} is not possible: write a side and pixels, such as left=64 ({', '.join(SIDES)})."
            )
        if side in found:
            raise MaquetteError(f"--extend names the side {side} twice, {found[side]} and {number} pixels: give one.")
        found[side] = int(number)
    return found


def extended(picture: Image, sides: Mapping[str, int], overlap: int = 0) -> tuple[Image, Image]:
    """(the picture with its border drawn out, the mask of the new part: L, 255 = to be drawn).

    overlap: pixels of the old picture beside the new part that are drawn anew too, so that the two grow together.
    """
    from PIL import Image

    left, top, right, bottom = (sides.get(side, 0) for side in SIDES)
    larger = drawn_out(picture, left, top, right, bottom)
    mask = Image.new("L", larger.size, 255)
    inner = (
        left + (overlap if left else 0),
        top + (overlap if top else 0),
        left + picture.width - (overlap if right else 0),
        top + picture.height - (overlap if bottom else 0),
    )
    if inner[0] < inner[2] and inner[1] < inner[3]:
        mask.paste(0, inner)
    return larger, mask
