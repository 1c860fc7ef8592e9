"""The photos of a run as Kohya's trainer would read them: its folders, or a data set file, and what it passes over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import TrainConfig, toml_text
from ..config.photos import template_of
from ..data.captions import CAPTION_EXTENSIONS, caption_for_class, caption_for_subject, class_of
from ..data.groups import Group
from ..data.images import is_photo, is_turned
from ..data.layouts import groups_in
from ..files import open_regular
from ..limits import CAPTION_BYTES

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}  # of pictures that it reads, in small or capital letters


@dataclass(frozen=True)
class Place:
    """One folder of photos, without what is below it. words: the caption of photos that have none."""

    folder: Path
    repeats: int
    words: str
    reg: bool = False
    photos: Sequence[Path] = ()
    first_line: bool = True  # whether the first line of a caption is all that is learned of it here
    beside: str = ""  # what belongs to the photos and would not be read

    def subset(self, ending: str) -> dict[str, Any]:
        """As a [[datasets.subsets]]."""
        made: dict[str, Any] = {"is_reg": True} if self.reg else {}
        made |= {"image_dir": str(self.folder), "num_repeats": self.repeats, "caption_extension": ending}
        return made | ({"class_tokens": self.words} if self.words else {})


def places(config: TrainConfig) -> list[Place]:
    """Every folder that the run reads; the named ones where they are not at hand."""
    reg = config.reg if config.reg is not None and config.reg.is_dir() else None
    found: list[Place] = []
    if config.photos.exists():
        groups = groups_in(config.photos, config.subject, reg)
        found = [place for group in groups for place in _of_group(group, config)]
    if not found and config.photos.is_dir():  # folders that are still empty
        inside = [(p, _repeats(p.name)) for p in sorted(config.photos.iterdir()) if p.is_dir()]
        found = [Place(p, count, p.name.partition("_")[2]) for p, count in inside if count]
    found = found or [Place(config.photos, config.repeats or 1, named_caption(config))]
    if config.reg is None or reg is not None:
        return found
    words = caption_for_class(class_of(config.subject)) if config.subject else ""
    return [*found, Place(config.reg, 1, words, reg=True)]


def named_caption(config: TrainConfig) -> str:
    """How captions name the subject where a photo has none."""
    return caption_for_subject(config.subject, template_of(config.kind)) if config.subject else ""


def _of_group(group: Group, config: TrainConfig) -> list[Place]:
    folders: dict[Path, list[Path]] = {}
    for file in group.files:
        if is_photo(file):
            folders.setdefault(file.parent, []).append(file)
    words = group.subject
    if words and not group.literal:
        template = template_of(config.kind)
        words = caption_for_class(words) if group.role == "class" else caption_for_subject(words, template)
    repeats = group.repeats if group.role == "class" else config.repeats or group.repeats
    beside = f"the captions in {group.metadata.file.name}" if group.metadata else "masks" if group.masks else ""
    return [
        Place(folder, repeats, words, group.role == "class", photos, group.lines == "first", beside)
        for folder, photos in sorted(folders.items())
    ]


def kohya_parent(found: Sequence[Place], ending: str) -> Path | None:
    """The folder to name where all are its `40_ohwx man` folders, and there are no others; else None.

    Nor where a photo without a caption would be called otherwise: there by the folder's words alone.
    """
    for place in found:
        named = place.words == place.folder.name.partition("_")[2]
        if not named and any(not photo.with_suffix(ending).is_file() for photo in place.photos):
            return None
    parents = {place.folder.parent for place in found}
    if len(parents) != 1:
        return None
    parent = parents.pop()
    if not parent.is_dir():
        return None
    numbered = {inside for inside in parent.iterdir() if inside.is_dir() and _repeats(inside.name)}
    same = all(_repeats(place.folder.name) == place.repeats for place in found)
    return parent if same and numbered == {place.folder for place in found} else None


def _repeats(name: str) -> int:
    count, line, _ = name.partition("_")
    return int(count) if line and count.isdecimal() and len(count) < 10 else 0


def data_set(found: Sequence[Place], ending: str) -> str:
    """A data set file of these folders."""
    return "[[datasets]]\n" + "".join(f"\n[[datasets.subsets]]\n{toml_text(p.subset(ending))}" for p in found)


def caption_extension(found: Sequence[Place], folder: Path) -> str:
    """Of the caption files, of which that program reads one kind only; it means another where none is named."""
    beside = {e for p in found for photo in p.photos for e in CAPTION_EXTENSIONS if photo.with_suffix(e).is_file()}
    there = [e for e in CAPTION_EXTENSIONS if e in beside or (not beside and next(folder.rglob(f"*{e}"), None))]
    return (there or list(CAPTION_EXTENSIONS))[0]


def passed_over(found: Sequence[Place], ending: str, wildcards: bool) -> list[str]:
    """What of the photos and captions that program would not read, in sentences."""
    photos = [(photo, place) for place in found for photo in place.photos]
    lines = []
    if strange := [p for p, _ in photos if p.suffix not in SUFFIXES | {s.upper() for s in SUFFIXES}]:
        lines.append(f"photos: {_names(strange)} would not be read; save them as JPEG or PNG")
    if turned := [p for p, _ in photos if is_turned(p)]:
        lines.append(f"photos: {_names(turned)} would lie on their side: EXIF orientation is not read; turn them")
    lines += dict.fromkeys(f"photos: {place.beside} would not be read" for place in found if place.beside)
    kinds = (*CAPTION_EXTENSIONS, ending)
    beside = [(p, place, [e for e in kinds if p.with_suffix(e).is_file()]) for p, place in photos]
    if other := [p for p, _, endings in beside if endings and ending not in endings]:
        lines.append(f"captions: that of {_names(other)} is no {ending} file and would not be read")
    long = [p for p, place, endings in beside if ending in endings and not place.first_line]
    if not wildcards and (cut := [p for p in long if _lines(p.with_suffix(ending)) > 1]):
        lines.append(f"captions: of {_names(cut)} only the first line would be read")
    return lines


def _names(paths: list[Path]) -> str:
    shown = ", ".join(path.name for path in paths[:3])
    return shown if len(paths) <= 3 else f"{shown} and {len(paths) - 3} more"


def _lines(caption: Path) -> int:
    """Lines of a caption that hold words."""
    with open_regular(caption) as file:
        return sum(1 for line in file.read(CAPTION_BYTES).splitlines() if line.strip())
