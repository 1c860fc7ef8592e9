"""Picture sheets: pictures side by side, with labels that stay readable however small the pictures are."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

PAPER, INK = (255, 255, 255), (30, 36, 48)
LABEL, TITLE = 14, 19  # pixels of the letters, whatever the zoom
GAP = 6  # pixels between pictures
LEFT_WIDTH = 170  # at most, of the labels on the left
NARROWEST = 96  # a column with a label above it is at least so wide
JOINTS = "-_/=,+"  # of names: where a word that is too wide may break
LINES = 6  # a longer label ends in an ellipsis


def sheet(
    images: Sequence[Image],
    columns: int,
    labels_top: Sequence[str] | None = None,
    labels_left: Sequence[str] | None = None,
    title: str | None = None,
    zoom: int = 1,
) -> Image:
    """One RGB picture of all pictures, row after row, each enlarged `zoom` times; smaller ones stand in the middle.

    labels_top: one per column. labels_left: one per row. Raises ValueError when the numbers do not agree.
    """
    from PIL import Image, ImageDraw

    if not images or columns < 1 or zoom < 1:
        raise ValueError(f"a sheet needs pictures, columns and a zoom of 1 or more: {len(images)}, {columns}, {zoom}")
    rows = -(-len(images) // columns)
    _agree("labels_top", labels_top, columns)
    _agree("labels_left", labels_left, rows)
    shown = [_enlarged(image, zoom) for image in images]
    width = max(NARROWEST if labels_top else 1, *(image.width for image in shown))
    tops = [_Text.wrapped(text, width, LABEL) for text in labels_top or []]
    lefts = [_Text.wrapped(text, LEFT_WIDTH, LABEL) for text in labels_left or []]
    height = max([*(image.height for image in shown), *(text.height for text in lefts)])
    left = GAP + max([0, *(text.width + GAP for text in lefts)])
    full = left + columns * (width + GAP)
    head = _Text.wrapped(title or "", full - 2 * GAP, TITLE)
    first = GAP + (head.height + GAP if title else 0) + max([0, *(text.height + GAP for text in tops)])
    canvas = Image.new("RGB", (full, first + rows * (height + GAP)), PAPER)
    pen = ImageDraw.Draw(canvas)
    head.write(pen, GAP, GAP)
    for column, text in enumerate(tops):
        text.write(pen, left + column * (width + GAP) + width / 2, first - GAP - text.height, "ma")
    for row, text in enumerate(lefts):
        text.write(pen, left - GAP, first + row * (height + GAP) + (height - text.height) / 2, "ra")
    for i, picture in enumerate(shown):
        x, y = left + i % columns * (width + GAP), first + i // columns * (height + GAP)
        canvas.paste(picture, (x + (width - picture.width) // 2, y + (height - picture.height) // 2))
    return canvas


def _agree(name: str, labels: Sequence[str] | None, count: int) -> None:
    if labels is not None and len(labels) != count:
        raise ValueError(f"{len(labels)} {name} for {count}")


def _enlarged(image: Image, zoom: int) -> Image:
    from PIL.Image import Resampling

    size = (image.width * zoom, image.height * zoom)
    return image.convert("RGB").resize(size, Resampling.BICUBIC) if zoom > 1 else image.convert("RGB")


@cache
def _font(size: int) -> Any:
    """DejaVu Sans of the matplotlib package, which has Greek, Cyrillic and more, found without importing it."""
    from PIL import ImageFont

    package = importlib.util.find_spec("matplotlib")
    if package is not None and package.origin:
        path = Path(package.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


@dataclass(frozen=True)
class _Text:
    """Lines one below the other."""

    lines: Sequence[str]
    size: int

    @classmethod
    def wrapped(cls, text: str, width: int, size: int) -> _Text:
        return cls(_wrapped(text, width, size), size)

    @property
    def width(self) -> int:
        return max([0, *(_length(line, self.size) for line in self.lines)])

    @property
    def height(self) -> int:
        return len(self.lines) * _spacing(self.size)

    def write(self, pen: ImageDraw, x: float, y: float, anchor: str = "la") -> None:
        """anchor as in Pillow: whether x is the left, middle or right of every line."""
        for i, line in enumerate(self.lines):
            pen.text((x, y + i * _spacing(self.size)), line, fill=INK, font=_font(self.size), anchor=anchor)


def _spacing(size: int) -> int:
    return round(size * 1.3)


def _length(text: str, size: int) -> int:
    width: float = _font(size).getlength(text)
    return math.ceil(width)


def _wrapped(text: str, width: int, size: int) -> list[str]:
    """Lines no wider than `width` pixels, broken between words, and within a word that is wider alone, behind a joint
    (`JOINTS`) where it has one.
    """
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split():
            joined = f"{line} {word}" if line else word
            if _length(joined, size) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            while _length(word, size) > width and len(word) > 1:
                longest = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or _length(word[:n], size) <= width)
                fitting = max(word.rfind(joint, 1, longest) for joint in JOINTS) + 1 or longest
                lines.append(word[:fitting])
                word = word[fitting:]
            line = word
        if line:
            lines.append(line)
    if len(lines) <= LINES:
        return lines
    last = lines[LINES - 1]
    while last and _length(last + "…", size) > width:
        last = last[:-1]
    return [*lines[: LINES - 1], last + "…"]
