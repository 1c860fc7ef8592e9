"""Photos from disk as a person sees them: found in any letter case, decoded whole, right way up, 8-bit sRGB, opaque."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".heic", ".heif", ".avif"})
# Pictures that a person may think are used: they are named, never passed over in silence.
OTHER_PICTURES = frozenset(
    {".gif", ".tif", ".tiff", ".svg", ".psd", ".jxl", ".jp2", ".jfif", ".jpe", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
MAX_PIXELS = 178_956_970  # where Pillow calls a picture a decompression bomb: 13,377 pixels square


@dataclass(frozen=True)
class OpenedPhoto:
    """A decoded photo. `image` is RGB; `alpha` is its transparency (mode L, 255 = opaque) where it has any."""

    image: Image
    alpha: Image | None
    sha256: str  # of the file's bytes
    notes: tuple[str, ...]  # what was done to it that the user may want to know


@cache
def _pillow() -> Any:
    """Pillow with HEIF (phone photos) registered. Its warning for half-bombs is muted: real bombs are errors anyway."""
    from PIL import Image
    from pillow_heif import register_heif_opener

    register_heif_opener()
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    return Image


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder, in a fixed order; links are followed, each real folder is entered once."""
    entered: set[str] = set()
    for root, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:
            names.clear()
            continue
        entered.add(real)
        names[:] = sorted(n for n in names if not n.startswith(".") and n != "__MACOSX")
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(root, name)


def is_photo(path: Path) -> bool:
    """Whether the extension, in any letter case, is a photo's."""
    return path.suffix.lower() in EXTENSIONS


def find_photos(folder: str | Path) -> list[Path]:
    """Files below `folder` with a photo's extension in any letter case, sorted; nested and linked folders too."""
    return sorted(path for path in walk(Path(folder)) if is_photo(path))


def open_photo(path: str | Path) -> Image:
    """The photo as an RGB Pillow image, right way up, in sRGB. Raises MaquetteError saying why it cannot be used."""
    return read_photo(path).image


def read_photo(path: str | Path, name: str | None = None) -> OpenedPhoto:
    """Decode a photo completely: EXIF orientation, ICC to sRGB, 16 bits to 8, CMYK, palette, transparency on white.

    Raises MaquetteError with one sentence that names the file (as `name` where given) and the fault.
    """
    path = Path(path)
    name = name or path.name
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MaquetteError(f"{name} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise MaquetteError(f"{name} is empty (0 bytes); copy it again from where it came.")
    notes: list[str] = []
    picture = _decode(name, data)
    picture = _upright(picture, notes)
    colour, alpha = _split_alpha(picture)
    colour = _to_srgb(colour, picture.info.get("icc_profile"), notes)
    if alpha is not None:
        colour = _on_white(colour, alpha)
        notes.append("transparent parts became white")
    return OpenedPhoto(colour, alpha, hashlib.sha256(data).hexdigest(), tuple(notes))


def _decode(name: str, data: bytes) -> Image:
    """All pixels of a still picture, or a MaquetteError that says what the file is instead."""
    pillow = _pillow()
    try:
        picture = pillow.open(BytesIO(data))
        frames = getattr(picture, "n_frames", 1)
        if frames > 1 and picture.format in {"GIF", "WEBP", "PNG", "AVIF"}:
            kind = picture.format
            raise MaquetteError(
                f"{name} is an animated {kind} ({frames} frames); save the frame you want as PNG or JPEG."
            )
        picture.load()
    except MaquetteError:
        raise
    except pillow.DecompressionBombError as error:
        raise MaquetteError(
            f"{name} unpacks to more than {MAX_PIXELS // 1_000_000} million pixels, which is refused as a "
            "decompression bomb; save it smaller."
        ) from error
    except pillow.UnidentifiedImageError as error:
        raise MaquetteError(f"{name} is not a picture: {_what_it_is(data)}.") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files; the cause is kept for --debug
        raise MaquetteError(f"{name} is damaged and cannot be decoded ({_reason(error)}).") from error
    return picture


def _what_it_is(data: bytes) -> str:
    """A guess, for the sentence, at what a file with a photo's name holds."""
    start = data[:500]
    if start[:2] == b"PK":
        return "it is a zip archive; unpack it"
    if start[:4] == b"%PDF":
        return "it is a PDF; export its pages as PNG"
    text = start.decode("utf-8", "replace").rstrip("\ufffd")  # the cut at 500 bytes may split a character
    if text and all((c.isprintable() or c.isspace()) and c != "\ufffd" for c in text):
        return "it is a web page" if text.lstrip().lower().startswith(("<!doctype", "<html")) else "it holds text"
    if len(data) < 16:
        return f"it has only {len(data)} bytes"
    return "its content is of no picture format that can be read, or its beginning is damaged"


def _reason(error: Exception) -> str:
    text = str(error).strip().rstrip(".") or type(error).__name__
    return "the file is cut off" if "truncated" in text.lower() else text.splitlines()[0][:120]


def _upright(picture: Image, notes: list[str]) -> Image:
    """Apply the EXIF orientation (HEIF and AVIF readers have done it already and cleared the tag)."""
    from PIL import ImageOps

    try:
        turned = ImageOps.exif_transpose(picture)
    except Exception:  # damaged EXIF must not cost a good photo; Pillow raises many kinds here
        notes.append("its EXIF data is damaged, so its orientation is unknown")
        return picture
    if turned.size != picture.size or picture.getexif().get(0x0112, 1) != turned.getexif().get(0x0112, 1):
        notes.append("turned upright (EXIF orientation)")
    turned.info.setdefault("icc_profile", picture.info.get("icc_profile"))
    return turned


def _split_alpha(picture: Image) -> tuple[Image, Image | None]:
    """Separate colour (any mode with 8 bits a channel, no alpha) and transparency (mode L, None if all opaque)."""
    if picture.mode in {"I;16", "I;16L", "I;16B", "I;16N", "I", "F"}:
        return _sixteen_bits(picture), None
    transparent = "transparency" in picture.info or picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"}
    if picture.mode == "RGBX":
        return picture.convert("RGB"), None
    if not transparent:
        return (picture.convert("RGB") if picture.mode in {"P", "1", "HSV", "YCbCr"} else picture), None
    grey = picture.mode in {"LA", "La"} or (picture.mode == "L" and not isinstance(picture.info["transparency"], bytes))
    both = picture.convert("RGBA")
    alpha = both.getchannel("A")
    opaque = alpha.getextrema()[0] == 255
    return (both.getchannel("R") if grey else both.convert("RGB")), None if opaque else alpha


def _sixteen_bits(picture: Image) -> Image:
    """Grey of 16 or 32 bits or floats to 8 bits. 65535 -> 255; floats are taken to be in [0, 1] or [0, 255]."""
    import numpy as np

    values = np.asarray(picture).astype(np.float64)
    largest = float(values.max(initial=0.0))
    if picture.mode == "F":
        scale = 255.0 if largest <= 1.0 else 1.0
    else:
        scale = 1 / 257 if picture.mode != "I" or largest > 255 else 1.0
    return _pillow().fromarray((values * scale + 0.5).clip(0, 255).astype(np.uint8))


def _to_srgb(colour: Image, profile: bytes | None, notes: list[str]) -> Image:
    """Convert by the embedded ICC profile, if any, to sRGB. A profile that does not fit the picture is ignored."""
    if not profile:
        return colour.convert("RGB")
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(space) != colour.mode:
            notes.append(f"its colour profile ({space}) does not fit its pixels ({colour.mode}) and was ignored")
            return colour.convert("RGB")
        title = ImageCms.getProfileDescription(source).strip()
        if space == "RGB" and title.lower().startswith("srgb"):
            return colour  # converting sRGB to itself only adds rounding
        converted = ImageCms.profileToProfile(
            colour,
            source,
            _srgb(),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        notes.append(f"its colour profile is damaged and was ignored ({_reason(error)})")
        return colour.convert("RGB")
    assert converted is not None  # only in-place conversion returns None
    notes.append(f"colours converted from {title or space} to sRGB")
    return converted


@cache
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


def _on_white(colour: Image, alpha: Image) -> Image:
    white = _pillow().new("RGB", colour.size, (255, 255, 255))
    white.paste(colour.convert("RGB"), mask=alpha)
    return white
