"""Masks that lie beside photos under the names of other trainers: used or named, never trained as photos."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .captions import same_name
from .dataset import Problem
from .images import is_photo

if TYPE_CHECKING:
    from PIL.Image import Image

# OneTrainer writes a-masklabel.png and a-condlabel.png, other trainers and editors a_mask.png, a-mask.png, a.mask.png,
# or mask_a.png.
_BESIDE = re.compile(
    r"^(?:(?P<before>mask[-_.])(?P<after>.+)|(?P<photo>.+?)(?P<kind>-masklabel|-condlabel|[-_.]mask))$",
    re.IGNORECASE | re.DOTALL,
)
_COLOURED = 40  # difference of a pixel's channels, 0..255, that no grey picture has, compressed or not


@dataclass
class Sorted:
    """The files of a folder tree: `files` without masks, and the mask of a photo by its path without extension."""

    files: list[Path] = field(default_factory=list)
    masks: dict[str, Path] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mask(self, photo: Path) -> Path | None:
        return self.masks.get(_stem(photo))


def sort_masks(files: Sequence[Path], root: Path) -> Sorted:
    """Take the masks out of the files. Names such as a_mask.png are masks only where there is a photo a."""
    photos = {_stem(file) for file in files if is_photo(file)}
    found = Sorted()
    for file in files:
        match = _BESIDE.match(file.stem) if is_photo(file) else None
        name = file.relative_to(root).as_posix()
        own = same_name(str(file.parent / (match["photo"] or match["after"]))) if match else ""
        kind = (match["kind"] or match["before"]).lower() if match else ""
        if match is None:
            found.files.append(file)
        elif kind == "-condlabel":
            message = f"{name} is a conditioning image of OneTrainer and is not used; only photos and masks are."
            found.problems.append(Problem("mask", name, message, left_out=True))
        elif own in photos and own not in found.masks:
            found.masks[own] = file
        elif own in photos:
            message = f"{name} is not used: {found.masks[own].name} is a mask of the same photo."
            found.problems.append(Problem("mask", name, message, left_out=True))
        elif kind == "-masklabel":
            message = f"The mask {name} is not used: there is no photo of that name."
            found.problems.append(Problem("mask", name, message, left_out=True))
        else:
            found.files.append(file)
    return found


def is_grey(image: Image) -> bool:
    """Whether an RGB picture has no colours, as masks have none."""
    from PIL import ImageChops

    red, green, blue = image.split()
    differences = ImageChops.difference(red, green), ImageChops.difference(green, blue)
    extrema: list[Any] = [difference.getextrema() for difference in differences]
    return all(highest < _COLOURED for _, highest in extrema)


def _stem(file: Path) -> str:
    return same_name(str(file.with_suffix("")))
