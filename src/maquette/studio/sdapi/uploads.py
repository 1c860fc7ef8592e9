"""Pictures in requests: base64 or a data URL, never an address."""

from __future__ import annotations

import base64
import binascii
from io import BytesIO

from fastapi import HTTPException

from ...errors import MaquetteError
from ...formats import pictures

MOST_PIXELS = 16_800_000  # 4096 x 4096 and a little
MOST_BYTES = 40_000_000


def picture_bytes(text: str, what: str = "image") -> bytes:
    """The bytes of a picture, whose format and size are checked. Raises HTTPException 422 (413 for its size)."""
    text = text.strip()
    if text[:8].lower().startswith(("http:", "https:", "ftp:", "file:")):
        raise HTTPException(422, f"{what} is an address, and nothing is fetched: send the picture itself as base64.")
    if text[:5].lower() == "data:":
        text = text.partition(",")[2]
    if len(text) > MOST_BYTES * 4 // 3 + 4:
        raise HTTPException(413, f"{what} has more than {MOST_BYTES // 1_000_000} MB; send it smaller.")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise HTTPException(422, f"{what} is no picture in base64.") from error
    require_picture(data, what)
    return data


def require_picture(data: bytes, what: str) -> None:
    """Raises HTTPException for what is no picture of a known format, or too large."""
    try:
        picture = pictures.open_picture(BytesIO(data))
        pictures.prepare(picture, what)
    except MaquetteError as error:
        raise HTTPException(422, str(error)) from error
    except Exception as error:  # Pillow raises a dozen kinds
        raise HTTPException(422, f"{what} is no picture that can be read: send PNG, JPEG, WebP or BMP.") from error
    if picture.width * picture.height > MOST_PIXELS:
        raise HTTPException(
            413, f"{what} has {picture.width} x {picture.height} pixels, more than 4096 x 4096; send it smaller."
        )


def mask_for(mask: bytes, picture: bytes) -> bytes:
    """The mask at the size of the picture, as A1111 brings both to one."""
    shape, shown = pictures.open_picture(BytesIO(mask)), pictures.open_picture(BytesIO(picture))
    width, height = shown.size
    if shown.getexif().get(_ORIENTATION, 1) in _ON_ITS_SIDE:
        width, height = height, width
    if shape.size == (width, height):
        return mask
    stream = BytesIO()
    try:
        shape.convert("RGBA" if "A" in shape.getbands() else "L").resize((width, height)).save(stream, format="PNG")
    except Exception as error:  # Pillow raises a dozen kinds for damaged files
        raise HTTPException(422, "mask is no picture that can be read: send PNG, JPEG, WebP or BMP.") from error
    return stream.getvalue()


_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = (5, 6, 7, 8)
