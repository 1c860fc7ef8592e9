"""The photos of a project: each a file named by the hash of its content, its caption, crop and mask beside it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.captions import read_caption
from ..data.doctor import Look, look_at
from ..data.images import read_photo
from ..errors import MaquetteError
from ..files import atomic_writer, write_text
from ..formats import pictures
from .examine import look_of, told_look
from .names import NotFound, require_id, shown_file

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PHOTOS = 200
MOST_BYTES = 40_000_000
CAPTION_LENGTH = 4_000
ID_LENGTH = 16
THUMB, LARGE = 320, 1536  # longest side of what pages show, in pixels
ENDINGS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "HEIF": ".heic", "AVIF": ".avif"}
_decoding = threading.Semaphore(2)  # photos that are decoded at once: a large one takes hundreds of megabytes
Box = tuple[int, int, int, int]  # x, y, width, height in pixels of the upright photo


class Photo:
    """One photo. Sizes are of the upright picture, in pixels."""

    def __init__(self, folder: PhotoFolder, sha256: str, facts: dict[str, Any]) -> None:
        self._folder, self.sha256, self._facts = folder, sha256, facts
        self.id = sha256[:ID_LENGTH]

    @property
    def file(self) -> Path:
        """The project's own copy."""
        return self._folder.path / f"{self.sha256}{self._facts['ending']}"

    @property
    def original_name(self) -> str:
        return str(self._facts["name"])

    @property
    def width(self) -> int:
        return int(self._facts["width"])

    @property
    def height(self) -> int:
        return int(self._facts["height"])

    @property
    def notes(self) -> list[str]:
        """What was done while reading: "turned upright (EXIF orientation)"."""
        return list(self._facts.get("notes", []))

    @property
    def excluded(self) -> bool:
        return bool(self._facts.get("excluded", False))

    @property
    def crop(self) -> Box | None:
        """What the user cut it to: x, y, width, height; None for as training cuts it by itself."""
        box = self._facts.get("crop")
        return None if box is None else (int(box[0]), int(box[1]), int(box[2]), int(box[3]))

    @property
    def caption_file(self) -> Path:
        return self._folder.path / f"{self.sha256}.txt"

    @property
    def caption(self) -> str:
        """What lies beside the photo; "" without."""
        if not self.caption_file.exists():
            return ""
        try:
            return read_caption(self.caption_file).joined
        except MaquetteError:
            return ""

    @property
    def mask_file(self) -> Path:
        return self._folder.path / f"{self.sha256}.mask.png"

    @property
    def mask(self) -> Path | None:
        """Where the loss counts; None for everywhere."""
        return self.mask_file if self.mask_file.exists() else None

    @property
    def size_trained(self) -> tuple[int, int]:
        """Width and height of what training is given."""
        return self.crop[2:] if self.crop else (self.width, self.height)

    @property
    def look(self) -> Look | None:
        """What was measured when it came."""
        return look_of(self._facts)

    @property
    def version(self) -> int:
        """Counts changes, so that two pages notice each other's."""
        return int(self._facts.get("version", 0))

    @property
    def facts(self) -> dict[str, Any]:
        return self._facts

    def set_caption(self, text: str) -> None:
        """Write the caption beside the photo. Raises MaquetteError for one that is too long."""
        text = " ".join(text.split())
        if len(text) > CAPTION_LENGTH:
            raise MaquetteError(f"A caption has at most {CAPTION_LENGTH} characters; this one has {len(text)}.")
        write_text(self.caption_file, f"{text}\n" if text else "")
        self.changed()

    def set_excluded(self, excluded: bool) -> None:
        self._facts["excluded"] = excluded
        self.changed()

    def set_crop(self, box: Box | None) -> None:
        """Raises MaquetteError for a frame that does not lie within the photo."""
        if box is not None:
            x, y, width, height = box
            if min(x, y) < 0 or min(width, height) < 16 or x + width > self.width or y + height > self.height:
                raise MaquetteError(f"The frame must lie within the photo of {self.width} x {self.height} pixels.")
        self._facts["crop"] = None if box is None else list(box)
        self.changed()

    def picture(self, side: int) -> Path:
        """A WebP of at most `side` pixels for pages, upright and without EXIF; made at its first use."""
        path = self._folder.path.parent / "shown" / f"{self.sha256}-{side}.webp"
        if not path.exists():
            write_shown(read_photo(self.file, self.original_name).image, path, side)
        return path

    def changed(self) -> None:
        """Count a change, and save."""
        self._facts["version"] = self.version + 1
        self._folder.save()


class PhotoFolder:
    """The photos in a folder, with the facts that project.json keeps of each."""

    def __init__(self, path: Path, facts: dict[str, Any], save: Callable[[], None]) -> None:
        self.path, self._facts, self.save = path, facts, save

    def all(self) -> list[Photo]:
        """Those whose file is there."""
        found = [Photo(self, sha256, facts) for sha256, facts in self._facts.items()]
        return [photo for photo in found if photo.file.exists()]

    def get(self, identity: str) -> Photo:
        require_id(identity, "photo")
        for photo in self.all():
            if photo.id == identity:
                return photo
        raise NotFound("There is no such photo; it may have been removed.")

    def add(self, data: bytes, original_name: str, lock: threading.RLock) -> Photo:
        """Decode, then keep. Raises MaquetteError."""
        name = shown_file(original_name) or "photo"
        sha256 = hashlib.sha256(data).hexdigest()
        ending = ending_of(data, name)
        with lock:
            self._refuse(sha256, name)
            for left in (f"{sha256}.txt", f"{sha256}.mask.png"):  # by a removal that was killed in its middle
                if sha256 not in self._facts:
                    (self.path / left).unlink(missing_ok=True)
        with atomic_writer(self.path / f"{sha256}{ending}") as file:
            file.write(data)
        try:
            with _decoding:
                opened = read_photo(self.path / f"{sha256}{ending}", name)
                look = told_look(look_at(opened))
                write_shown(opened.image, self.path.parent / "shown" / f"{sha256}-{THUMB}.webp", THUMB)
        except BaseException:
            if sha256 not in self._facts:
                (self.path / f"{sha256}{ending}").unlink(missing_ok=True)
            raise
        facts = {"name": name, "ending": ending, "width": opened.image.width, "height": opened.image.height}
        with lock:
            self._refuse(sha256, name)
            self._facts[sha256] = facts | {"notes": list(opened.notes), "alpha": opened.alpha is not None, "look": look}
            self.save()
        return Photo(self, sha256, self._facts[sha256])

    def remove(self, identity: str) -> None:
        photo = self.get(identity)
        del self._facts[photo.sha256]
        self.save()
        for path in (*self.path.glob(f"{photo.sha256}*"), *(self.path.parent / "shown").glob(f"{photo.sha256}*")):
            path.unlink(missing_ok=True)

    def _refuse(self, sha256: str, name: str) -> None:
        if sha256 in self._facts and (self.path / f"{sha256}{self._facts[sha256]['ending']}").exists():
            raise MaquetteError(f"{name} is the same file as {self._facts[sha256]['name']}, which is here already.")
        if len(self._facts) >= MOST_PHOTOS:
            raise MaquetteError(f"{name} was not added: a project holds {MOST_PHOTOS} photos; 10 to 50 are enough.")


def ending_of(data: bytes, name: str) -> str:
    """The ending by which a photo is kept, from its content alone. Raises MaquetteError for what is no photo."""
    if not data:
        raise MaquetteError(f"{name} is empty (0 bytes); copy it again from where it came.")
    if len(data) > MOST_BYTES:
        raise MaquetteError(f"{name} has {len(data) / 1e6:.0f} MB; photos of up to {MOST_BYTES // 10**6} MB are taken.")
    return ENDINGS.get(pictures.kind_of(data[:16]) or "", ".jpg")


def write_shown(image: Image, path: Path, side: int) -> None:
    """A WebP of at most `side` pixels, with nothing but its pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=82)
    with atomic_writer(path) as file:
        file.write(buffer.getvalue())
