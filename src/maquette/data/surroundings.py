"""What the photos of a folder have in common, said as sentences: their number, their sizes, their surroundings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .dataset import Photo
from .doctor import Look

if TYPE_CHECKING:
    import numpy as np

FEW = 8  # photos below which a subject is usually learned together with its pictures
ALIKE = 25.0  # difference of the edges' median colours, 0..255; photos of one place differ less, of two mostly more
_NAMED = 6  # photos named in a sentence
_GREYS = ((30, "black"), (95, "dark grey"), (165, "grey"), (225, "light grey"), (256, "white"))
_HUES = ((20, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (200, "cyan"), (260, "blue"), (320, "purple"))


def observations(photos: Sequence[Photo], looks: Mapping[Path, Look]) -> list[str]:
    """Sentences about instance photos, for a person who decides on captions and resolution; no faults."""
    known = [photo for photo in {photo.path: photo for photo in photos}.values() if photo.path in looks]
    if not known:
        return []
    lines = []
    if len(known) < FEW:
        number = "1 photo is" if len(known) == 1 else f"{len(known)} photos are"
        lines.append(f"{number} few: 10 to 20, in different places, light and poses, leave the subject freer.")
    smallest = min(known, key=lambda photo: photo.size[0] * photo.size[1])
    side = int((smallest.size[0] * smallest.size[1]) ** 0.5)
    lines.append(
        f"Up to a resolution of about {side} no photo's pixels are invented; the smallest is {smallest.name} "
        f"({smallest.size[0]} x {smallest.size[1]})."
    )
    if len(known) > 1:
        lines.append(_surroundings(known, [looks[photo.path] for photo in known]))
    return lines


def _surroundings(photos: Sequence[Photo], looks: Sequence[Look]) -> str:
    """The largest group of photos whose edges have nearly the colour of one of them."""
    import numpy as np

    edge = np.ones((8, 8), dtype=bool)
    edge[1:-1, 1:-1] = False
    medians = np.array([np.median(look.colours[edge], axis=0) for look in looks])  # (n, 3)
    best = np.zeros(len(photos), dtype=bool)
    for median in medians:  # one row at a time: every pair at once would not fit for 10,000 photos
        near = np.abs(medians - median).mean(axis=1) < ALIKE
        if near.sum() > best.sum():
            best = near
    count = int(best.sum())
    if count == 1:
        return "The surroundings have another colour in every photo: prompts can choose freely."
    colour = _colour_word(np.median(medians[best], axis=0))
    names = [photo.name for photo, same in zip(photos, best, strict=True) if same]
    if count == len(photos):
        who = f"all {count} photos"
    else:
        some = ", ".join(names[:_NAMED]) + (" …" if count > _NAMED else "")
        who = f"{count} of {len(photos)} photos ({some})"
    line = f"The edges of {who} have nearly one colour, {colour}"
    if count < 0.75 * len(photos):
        return f"{line}; the others differ, which keeps the surroundings free."
    return f"{line}: name that background in their captions, or it becomes part of the subject."


def _colour_word(rgb: np.ndarray) -> str:
    """A word for a colour; rgb: (3,) 0..255."""
    import colorsys

    hue, saturation, value = colorsys.rgb_to_hsv(*(float(x) / 255 for x in rgb))
    if saturation < 0.2:
        return next(word for limit, word in _GREYS if 255 * value < limit)
    word = next((word for limit, word in _HUES if 360 * hue < limit), "red" if 360 * hue >= 345 else "pink")
    if word in ("orange", "red", "yellow") and value < 0.65:
        word = "brown"
    return f"dark {word}" if value < 0.35 else word
