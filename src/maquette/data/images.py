"""Photos from disk as a person sees them: found in any letter case, decoded whole, right way up, 8-bit sRGB, opaque."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import open_regular, read_bytes
from ..formats import pictures
from ..limits import PHOTO_BYTES

if TYPE_CHECKING:
    from PIL.Image import Image

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".jpe", ".png", ".webp", ".bmp", ".heic", ".heif", ".avif"})
# Pictures that a person may think are used: they are named, never passed over in silence.
OTHER_PICTURES = frozenset(
    {".gif", ".tif", ".tiff", ".svg", ".psd", ".jxl", ".jp2", ".eps", ".ico", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
# Folders that systems and network disks put beside photos: forks, thumbnails, deleted files.
_NOT_OF_THE_USER = frozenset(
    {"__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}
    | {"system volume information"}
)
_BIG = 120_000_000  # bytes of memory: photos that need more are decoded one at a time
_one_big_photo = threading.Lock()
_DEEP = {"I;16", "I;16L", "I;16B", "I;16N", "I"}  # modes of more than 8 bits
_BAND = 4_000_000  # pixels that are converted at once
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class OpenedPhoto:
    """A decoded photo. `image` is RGB; `alpha` is its transparency (mode L, 255 = opaque) where it has any."""

    image: Image
    alpha: Image | None
    sha256: str  # of the file's bytes
    notes: tuple[str, ...]  # what was done to it that the user may want to know


def folders_once(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`: a folder, the names of the folders in it (those taken out are not entered) and of the files; links
    are followed, each real folder is entered once.
    """
    entered: set[str] = set()
    for root, names, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(root)
        if real in entered:
            names.clear()
            continue
        entered.add(real)
        yield Path(root), names, files


def walk(folder: Path) -> Iterator[Path]:
    """Every visible file below a folder, in a fixed order; links are followed, each real folder is entered once."""
    for root, names, files in folders_once(folder):
        names[:] = sorted(n for n in names if not is_hidden(n))
        for name in sorted(files):
            if not is_hidden(name):
                yield root / name


def directly_in(folder: Path) -> Iterator[Path]:
    """As `walk`, without what lies in sub-folders."""
    yield from sorted(path for path in folder.iterdir() if not is_hidden(path.name) and not path.is_dir())


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's own: thumbnails, waste, what macOS and a NAS leave behind."""
    return name.startswith(".") or name.lower() in _NOT_OF_THE_USER


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
    data = read_bytes(path, PHOTO_BYTES, "photo", name)
    if not data:
        raise MaquetteError(f"{name} is empty (0 bytes); copy it again from where it came.")
    with _decoding(name, data):
        picture = pictures.open_picture(BytesIO(data))
        pictures.prepare(picture, name)
        with _one_big_photo if pictures.memory_needed(picture) > _BIG else nullcontext():
            return _as_seen(picture, name, data)


def is_turned(path: Path) -> bool:
    """Whether only its EXIF data says how the photo stands upright, which some programs do not read; no for a file that
    is no photo. Only the header is read.
    """
    try:
        with open_regular(path) as file, _decoding(path.name, b""):
            return _turn(pictures.open_picture(file), []) is not None
    except MaquetteError:
        return False


@contextmanager
def _decoding(name: str, data: bytes) -> Iterator[None]:
    """What goes wrong within becomes a MaquetteError that says what the file is instead of a photo."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except MaquetteError:
        raise
    except UnidentifiedImageError as error:
        raise MaquetteError(_not_a_photo(name, data)) from error
    except MemoryError as error:
        raise MaquetteError(f"{name} needs more memory to be decoded than there is; save it smaller.") from error
    except Exception as error:  # Pillow's decoders raise a dozen kinds for damaged files; the cause is kept for --debug
        raise MaquetteError(f"{name} is damaged and cannot be decoded ({_reason(error)}).") from error


def _as_seen(picture: Image, name: str, data: bytes) -> OpenedPhoto:
    """Decode an opened picture, and make of it what a person sees. Each step lets go of what it was given."""
    pixels = picture.info.get("maquette_pixels", picture.width * picture.height)
    profile = picture.info.get("icc_profile")
    picture.load()
    if fault := pictures.damage(picture, data):
        raise MaquetteError(f"{name} is damaged: {fault}. Copy it again from where it came.")
    notes: list[str] = []
    turn = _turn(picture, notes)
    picture = _eight_bits(picture) if picture.mode in _DEEP else picture
    picture = pictures.reduced(picture)
    if picture.width * picture.height < pixels:
        share = round((pixels / (picture.width * picture.height)) ** 0.5)
        notes.append(f"read at 1/{share} of its size: it has {pixels / 1e6:.0f} million pixels")
    if turn is not None:
        picture = picture.transpose(turn)
        notes.append("turned upright (EXIF orientation)")
    colour, alpha = _split_alpha(picture)
    del picture
    colour = _to_srgb(colour, profile, notes)
    if alpha is not None:
        colour = _on_white(colour, alpha)
        notes.append("transparent parts became white")
    return OpenedPhoto(colour, alpha, hashlib.sha256(data).hexdigest(), tuple(notes))


def _not_a_photo(name: str, data: bytes) -> str:
    """The sentence for a file that no decoder knows."""
    kind = pictures.kind_of(data[:16])
    if kind == "GIF":
        what, which = ("an animated GIF", "the frame you want") if _is_animated_gif(data) else ("a GIF", "it")
        return f"{name} is {what}; save {which} as PNG or JPEG."
    if kind and kind not in pictures.FORMATS:
        return f"{name} is not a picture that can be read ({kind}); save it as PNG or JPEG."
    if kind:
        return f"{name} is damaged: it begins as {kind} does, and what follows is not that."
    return f"{name} is not a picture: {_what_it_is(data)}."


def _is_animated_gif(data: bytes) -> bool:
    try:
        return bool(getattr(pictures.open_picture(BytesIO(data), ("GIF",)), "is_animated", False))
    except Exception:  # a damaged one, which is only named
        return False


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


def _turn(picture: Image, notes: list[str]) -> Any:
    """How to turn a picture upright by its EXIF orientation, as Pillow's constant; None for not at all.

    The readers of HEIF and AVIF have turned already and cleared the tag.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        return turns.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF must not cost a good photo; Pillow raises many kinds here
        notes.append("its EXIF data is damaged, so its orientation is unknown")
        return None


def _split_alpha(picture: Image) -> tuple[Image, Image | None]:
    """Separate colour (any mode with 8 bits a channel, no alpha) and transparency (mode L, None if all opaque)."""
    transparent = "transparency" in picture.info or picture.mode in {"RGBA", "LA", "PA", "RGBa", "La"}
    if not transparent:
        return (picture.convert("RGB") if picture.mode in {"P", "1", "HSV", "YCbCr", "RGBX"} else picture), None
    grey = picture.mode in {"LA", "La"} or (picture.mode == "L" and not isinstance(picture.info["transparency"], bytes))
    both = _in_mode(picture, "RGBA")
    alpha = both.getchannel("A")
    opaque = alpha.getextrema()[0] == 255
    return (both.getchannel("R") if grey else both.convert("RGB")), None if opaque else alpha


def _eight_bits(picture: Image) -> Image:
    """Grey of 16 or 32 bits to 8 bits, a band of rows at a time. 65535 -> 255."""
    import numpy as np

    extrema: Any = picture.getextrema()
    scale = 1 / 257 if picture.mode != "I" or extrema[1] > 255 else 1.0
    whole: Image = pictures.pillow().new("L", picture.size)
    rows = max(1, _BAND // picture.width)
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        values = np.asarray(band).astype(np.float64) * scale + 0.5
        whole.paste(pictures.pillow().fromarray(values.clip(0, 255).astype(np.uint8)), (0, top))
    whole.info = {}
    return whole


def _to_srgb(colour: Image, profile: bytes | None, notes: list[str]) -> Image:
    """Convert by the embedded ICC profile, if any, to sRGB. A profile that does not fit the picture is ignored."""
    if not profile:
        return _in_mode(colour, "RGB")
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(space) != colour.mode:
            notes.append(f"its colour profile ({space}) does not fit its pixels ({colour.mode}) and was ignored")
            return _in_mode(colour, "RGB")
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
        return _in_mode(colour, "RGB")
    assert converted is not None  # only in-place conversion returns None
    notes.append(f"colours converted from {title or space} to sRGB")
    return converted


@cache
def _srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.createProfile("sRGB")


def _on_white(colour: Image, alpha: Image) -> Image:
    white: Image = pictures.pillow().new("RGB", colour.size, (255, 255, 255))
    white.paste(_in_mode(colour, "RGB"), mask=alpha)
    return white


def _in_mode(image: Image, mode: str) -> Image:
    """The picture in a mode of Pillow; itself, not a copy, where it has that."""
    return image if image.mode == mode else image.convert(mode)
