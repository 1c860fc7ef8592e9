"""Pictures written with their generation parameters inside, and these read again: PNG, JPEG, WebP, AVIF.

A1111 keeps the text of a PNG under the key `parameters`, of the others in the EXIF tag UserComment, as UTF-16.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import atomic_writer, open_regular
from . import pictures
from .png import KEY, write_png

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "avif": ".avif"}
_FORMATS = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".avif": "AVIF"}
_EXIF, _USER_COMMENT = 0x8769, 0x9286
_UNICODE, _ASCII = b"UNICODE\0", b"ASCII\0\0\0"
_EXIF_BYTES = 60_000  # a JPEG has room for 64 KiB


def write_picture(image: Image, path: str | Path, infotext: str = "", quality: int = 80, new: bool = False) -> None:
    """Write a picture in the format that its name's end says; the file appears whole or not at all.

    quality: 1 to 100, of all but PNG; WebP of 100 is lossless. new: raises NameTakenError rather than replace a file.
    Raises MaquetteError naming the file.
    """
    path = Path(path)
    kind = _FORMATS.get(path.suffix.lower())
    if kind is None:
        return write_png(image, path, infotext, new)
    comment = _UNICODE + infotext.encode("utf-16-be")
    if len(comment) > _EXIF_BYTES:
        raise MaquetteError(f"{path}: the text of the picture is too long for a {kind}; write PNG.")
    options: dict[str, Any] = {"quality": quality}
    if kind == "WEBP":
        options["lossless"] = quality == 100
    if infotext:
        exif = pictures.pillow().Exif()
        exif.get_ifd(_EXIF)[_USER_COMMENT] = comment
        options["exif"] = exif.tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path, new) as file:
            image.convert("RGB").save(file, format=kind, **options)
    except OSError as error:
        raise MaquetteError(f"{path} cannot be written: {error.strerror or error}.") from error


def read_parameters(path: str | Path) -> str:
    """The generation parameters of a picture, "" when it has none.

    Raises MaquetteError for a file that is no picture of a known format.
    """
    with open_regular(path) as file:
        try:
            return parameters_of(pictures.open_picture(file))
        except Exception as error:  # Pillow raises a dozen kinds for damaged files
            raise MaquetteError(f"{path} cannot be read as a picture.") from error


def parameters_of(picture: Image) -> str:
    """The generation parameters of an opened picture, "" when it has none."""
    text = picture.info.get(KEY, "")
    return text if isinstance(text, str) and text else _comment(picture)


def _comment(picture: Image) -> str:
    """The EXIF tag UserComment."""
    raw = picture.getexif().get_ifd(_EXIF).get(_USER_COMMENT, b"")
    if isinstance(raw, str):
        return raw
    if raw.startswith(_UNICODE):
        data = raw[len(_UNICODE) :]
        # Written by A1111 (piexif) in big-endian order; other programs use the picture's own.
        little = len(data) > 1 and data[1] == 0 and data[0] != 0
        return str(data.decode("utf-16-le" if little else "utf-16-be", "replace"))
    return str(raw.removeprefix(_ASCII).decode("utf-8", "replace")).strip("\0 ")
