"""Masks painted by hand: white where the loss counts, kept beside the photo as a grey PNG of its own size."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from ..files import atomic_writer
from ..formats import pictures

if TYPE_CHECKING:
    from PIL.Image import Image

    from .photos import Photo

MOST_BYTES = 20_000_000
WHOLE = 254  # a mask as white as this everywhere leaves nothing out


def opened(data: bytes) -> Image:
    """A mask from a client: PNG or WebP; transparent parts are black. Raises MaquetteError for anything else."""
    if not data or len(data) > MOST_BYTES:
        raise MaquetteError(f"A mask is a PNG of up to {MOST_BYTES // 10**6} MB.")
    try:
        picture = pictures.open_picture(BytesIO(data), ("PNG", "WEBP"))
        pictures.prepare(picture, "The mask")
        picture.load()
        whole = picture.convert("RGBA")
        black = pictures.pillow().new("RGBA", whole.size, (0, 0, 0, 255))
        black.alpha_composite(whole)
        grey: Image = black.convert("L")
        return grey
    except MaquetteError:
        raise
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise MaquetteError("The mask is no picture that can be read; send a PNG.") from error


def keep(photo: Photo, data: bytes) -> None:
    """Scale a mask to its photo and keep it; one that is white everywhere removes it.

    Raises MaquetteError for a mask that is black everywhere: nothing would be learned.
    """
    mask = opened(data)
    darkest, brightest = mask.getextrema()
    if not isinstance(brightest, int | float) or brightest == 0:
        raise MaquetteError("The mask is black everywhere, and nothing would be learned; paint the subject white.")
    if isinstance(darkest, int | float) and darkest >= WHOLE:
        return remove(photo)
    scaled = mask.resize((photo.width, photo.height))
    buffer = BytesIO()
    scaled.save(buffer, "PNG")
    with atomic_writer(photo.mask_file) as file:
        file.write(buffer.getvalue())
    photo.changed()


def remove(photo: Photo) -> None:
    """Without a mask the loss counts everywhere."""
    photo.mask_file.unlink(missing_ok=True)
    photo.changed()
