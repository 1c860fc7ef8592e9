"""From the files that settings name to what a drawing begins from, and what its ControlNets are shown."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.images import read_photo
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..families.controlnet import ControlNet
from .control import Guide, pixels_of
from .control_unit import ControlUnit
from .draw_settings import DrawSettings
from .enlarging import Enlargement
from .inpainting import Beginning, begin
from .pictures.fitting import fitted
from .pictures.masks import read_mask
from .pictures.outpainting import extended, read_sides
from .pictures.repainting import Repainting, repainting

if TYPE_CHECKING:
    from PIL.Image import Image

UNIT = 8  # pixels: what the sides of a drawing are multiples of, as in A1111


@dataclass(frozen=True)
class Canvas:
    """The size of drawing, the picture (RGB) to begin from at its own size, what of it is drawn anew, and its hash."""

    width: int
    height: int
    picture: Image | None = None
    repainted: Repainting | None = None
    init_hash: str | None = None

    def pasted(self, drawn: Image) -> Image:
        """What was drawn; the whole picture with it where only a part was."""
        return drawn if self.repainted is None else self.repainted.pasted(drawn)

    def beginning(self, base: BaseModel, settings: DrawSettings) -> Beginning | None:
        """Latents to begin from; None to begin from noise."""
        if self.picture is None:
            return None
        mode = settings.resize_mode
        picture = self.picture if self.repainted else fitted(self.picture, self.width, self.height, mode)
        if mode == "latent" and self.repainted is None:
            picture = _in_cells(picture)
        return begin(base, picture, self.width, self.height, mode, self.repainted, settings.masked_content)

    def shown(self, unit: ControlUnit, width: int, height: int) -> Image:
        """What a ControlNet is shown, at a size of drawing. Raises MaquetteError where no picture is known."""
        if unit.image is not None:
            picture = read_photo(unit.image).image
        elif self.picture is not None:
            picture = self.picture
        else:
            raise MaquetteError(f"The ControlNet {unit.model} has no picture: give it one with image=FILE.")
        box = self.repainted.box if self.repainted else None
        if box is not None and self.repainted is not None and picture.size == self.repainted.whole.size:
            picture = picture.crop(box)
        return unit.hint(picture, width, height)


def canvas_of(settings: DrawSettings, native: int) -> Canvas:
    """Read the picture and the mask that settings name. native: side of a drawing for which no size is given.

    Raises MaquetteError, naming the file, for pictures and masks that cannot be used.
    """
    width, height = settings.width or native, settings.height or native
    if settings.init_image is None:
        return Canvas(width, height)
    name = Path(settings.init_image).name
    photo = read_photo(settings.init_image)
    picture = photo.image.convert("RGB")
    init_hash = picture_hash(picture)
    mask = read_mask(settings.mask, photo, name, settings.mask_invert) if settings.mask else None
    mode = settings.resize_mode
    if sides := read_sides(settings.extend):
        larger, new = extended(picture, sides, overlap=round(2 * settings.mask_blur))
        if mask is not None:
            old = extended(mask, sides)[0].copy()
            old.paste(255, mask=new)
            new = old
        picture, mask = larger, new
        if not settings.only_masked and not (settings.width and settings.height):
            width, height = _own_size(picture, name)
    if mask is None:
        return Canvas(width, height, picture, None, init_hash)
    repainted = repainting(
        picture,
        mask,
        width,
        height,
        resize_mode=mode,
        blur=settings.mask_blur,
        content=settings.masked_content,
        only_masked=settings.only_masked,
        padding=settings.mask_padding,
    )
    return Canvas(width, height, picture, repainted, init_hash)


def picture_hash(picture: Image) -> str:
    """A1111's "Init image hash" of a picture (RGB)."""
    return hashlib.md5(picture.tobytes(), usedforsecurity=False).hexdigest()


def guides_of(
    settings: DrawSettings,
    base: BaseModel,
    canvas: Canvas,
    load: Callable[[str], ControlNet],
    enlargement: Enlargement | None = None,
) -> list[Guide]:
    """The ControlNets of settings, with what they are shown at the size of the first drawing, or of the second.

    Raises MaquetteError for a ControlNet of another family, and for a picture that cannot be read.
    """
    guides = []
    for unit in settings.controls:
        network = load(unit.model)
        network.require_family(base.spec.name)
        width, height = canvas.width, canvas.height
        if enlargement is not None:
            width, height = enlargement.kept_width, enlargement.kept_height
        first = next(network.module.parameters())
        picture = pixels_of(canvas.shown(unit, width, height)).to(first.device, first.dtype)
        guides.append(Guide(unit, network.module, picture))
    return guides


def _own_size(picture: Image, name: str) -> tuple[int, int]:
    if picture.width % UNIT or picture.height % UNIT:
        near = " x ".join(str(-(-side // UNIT) * UNIT) for side in picture.size)
        raise MaquetteError(
            f"{name} has {picture.width} x {picture.height} pixels once it is extended, and sides are multiples of "
            f"{UNIT}: extend it to {near}, or give a width and height."
        )
    return picture.size


def _in_cells(picture: Image) -> Image:
    """The picture cut, where it must be, to whole cells of a latent."""
    width, height = (max(UNIT, side // UNIT * UNIT) for side in picture.size)
    return fitted(picture, width, height, "crop")
