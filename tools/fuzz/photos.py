"""Photos: small ones of each format, damaged or with other sizes in their headers."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path

from . import nasty

_KINDS = (
    ("JPEG", "RGB"),
    ("JPEG", "CMYK"),
    ("JPEG", "L"),
    ("PNG", "RGBA"),
    ("PNG", "P"),
    ("PNG", "I;16"),
    ("WEBP", "RGB"),
    ("BMP", "RGB"),
    ("GIF", "P"),
    ("AVIF", "RGB"),
    ("HEIF", "RGB"),
    ("TIFF", "RGB"),
)


@cache
def _picture(kind: str, mode: str, progressive: bool) -> bytes:
    from PIL import Image
    from pillow_heif import register_heif_opener  # maquette does so when it meets such a photo

    from maquette.formats import pictures

    pictures.pillow()
    register_heif_opener()
    made = Image.effect_noise((48, 40), 60)
    picture = Image.new("I;16", (48, 40), 9000) if mode == "I;16" else made.convert("RGB").convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    options = {"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}
    picture.save(buffer, kind, **(options | ({"progressive": True} if progressive and kind == "JPEG" else {})))
    return buffer.getvalue()


def photo_case(rng: random.Random, folder: Path) -> Callable[[], object]:
    path = folder / rng.choice(("a.jpg", "a.png", "a.HEIC"))
    raw = bytearray(_picture(*rng.choice(_KINDS), rng.random() < 0.3))
    for _ in range(rng.randint(0, 3)):  # most of what can go wrong stands at the beginning
        raw[rng.randrange(min(len(raw), 200))] = rng.choice((0, 1, 255, rng.randrange(256)))
    path.write_bytes(nasty.damaged(rng, bytes(raw)))

    def read() -> object:
        from maquette.data.doctor import look_at
        from maquette.data.images import read_photo

        return look_at(read_photo(path))

    return read
