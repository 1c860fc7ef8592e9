"""The one place where pictures are opened: formats by name, size bounded before a pixel is decoded, big ones reduced.

Pillow finds some fifty formats by content. One of them (EPS) starts a program, others are slow or little tested; here
only those that the documentation promises are tried, whatever the file's name says.
"""

from __future__ import annotations

import warnings
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..limits import PHOTO_MEMORY, PHOTO_PIXELS, PHOTO_SIDE, PHOTO_WHOLE
from . import jpeg

if TYPE_CHECKING:
    from PIL.Image import Image

# As Pillow calls them; the pictures of two lenses that phones write (MPO) are opened as JPEG.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "HEIF", "AVIF")
_STILL_OR_MOVING = frozenset({"WEBP", "PNG", "AVIF"})
_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"%!PS", "EPS"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"8BPS", "PSD"),
    (b"\0\0\1\0", "ICO"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF"}
# Bytes of memory that decoders need for a pixel, measured (benchmarks/photo_memory.py); PNG and BMP by their mode.
_PER_PIXEL = {"WEBP": 16.0, "AVIF": 12.0, "HEIF": 7.5}
_PER_PIXEL_OF_MODE = {"L": 1.0, "I;16": 3.0, "RGB": 4.0, "1": 5.0, "P": 5.0}


@cache
def pillow() -> Any:
    """Pillow, without its own limit of pixels: that of `limits` is stricter."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    return Image


@cache
def _know_heif() -> None:
    """Register the format of phone photos, whose library takes a tenth of a second to import."""
    from pillow_heif import register_heif_opener

    register_heif_opener()


def kind_of(start: bytes) -> str:
    """The picture format that a file begins as ("PNG", "EPS", …), by its first 16 bytes; "" for what is no picture."""
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":
        return _BRANDS.get(start[8:12], "")
    return next((kind for beginning, kind in _BEGINNINGS if start.startswith(beginning)), "")


def open_picture(file: IO[bytes], formats: tuple[str, ...] = FORMATS) -> Image:
    """Identify a picture of one of the formats and read its header. No pixel is decoded.

    Raises what Pillow raises: UnidentifiedImageError for other formats, a dozen others for damaged files.
    """
    container = file.read(8)[4:] == b"ftyp"  # HEIF or AVIF; Pillow asks the file which
    file.seek(0)
    if container:
        _know_heif()
    else:
        formats = tuple(name for name in formats if name != "HEIF")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damaged tags; what matters is found when decoding
        picture: Image = pillow().open(file, formats=formats)
    return picture


def memory_needed(picture: Image) -> int:
    """Bytes of memory that decoding an opened picture will take, once `prepare` has been called."""
    pixels = picture.width * picture.height
    if picture.format in ("JPEG", "MPO"):
        full = picture.info.get("maquette_pixels", pixels)
        layers = getattr(picture, "layers", 3)
        # A progressive file is decoded from the coefficients of the whole picture, two bytes each.
        return 4 * pixels + (2 * layers * full if "progressive" in picture.info else 0)
    each = _PER_PIXEL.get(str(picture.format)) or _PER_PIXEL_OF_MODE.get(picture.mode, 9.0)
    if picture.mode == "P" and "transparency" in picture.info:
        each = 9.0
    return round(pixels * each)


def prepare(picture: Image, name: str) -> None:
    """Refuse what is no still picture or is too large, and have a big JPEG decoded at a half, a quarter or an eighth.

    Raises MaquetteError that begins with `name`.
    """
    frames = getattr(picture, "n_frames", 1) if picture.format in _STILL_OR_MOVING else 1
    if frames > 1:
        raise MaquetteError(
            f"{name} is an animated {picture.format} ({frames} frames); save the frame you want as PNG or JPEG."
        )
    width, height = picture.size
    pixels = width * height
    if pixels > PHOTO_PIXELS:
        raise MaquetteError(
            f"{name} unpacks to {_millions(pixels)} million pixels, which is refused as a decompression bomb "
            f"({_millions(PHOTO_PIXELS)} million at most); save it smaller."
        )
    if max(width, height) > PHOTO_SIDE:
        raise MaquetteError(
            f"{name} has a side of {max(width, height)} pixels ({PHOTO_SIDE} at most); cut or shrink it."
        )
    if picture.format in ("JPEG", "MPO") and pixels > PHOTO_WHOLE:
        part = next(part for part in (2, 4, 8) if pixels <= PHOTO_WHOLE * part**2 or part == 8)
        picture.draft(None, (width // part, height // part))
        picture.info["maquette_pixels"] = pixels
    if memory_needed(picture) > PHOTO_MEMORY:
        raise MaquetteError(
            f"{name} has {_millions(pixels)} million pixels; as {picture.format} they need more memory to be decoded "
            f"than a photo may ({PHOTO_MEMORY // 1_000_000} MB). Save it smaller, or as an ordinary JPEG."
        )


def reduced(picture: Image) -> Image:
    """A decoded picture of more than PHOTO_WHOLE pixels shrunk to a half, a third … of its sides."""
    pixels = picture.width * picture.height
    if pixels <= PHOTO_WHOLE:
        return picture
    part = next(part for part in range(2, 100) if pixels <= PHOTO_WHOLE * part**2)
    if picture.mode in ("P", "1"):
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    return picture.reduce(part)


def damage(picture: Image, data: bytes) -> str:
    """What is wrong with the compressed data of a decoded picture that its decoder passed over; "" for nothing."""
    return jpeg.fault(data) if picture.format in ("JPEG", "MPO") else ""


def _millions(pixels: int) -> str:
    return f"{pixels / 1e6:.0f}"
