"""A grid as one labelled picture, and as a page in which every picture can be looked at whole."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..formats.pictures import open_picture
from .pages import render, style_sheet
from .sheet import PAPER, sheet

if TYPE_CHECKING:
    from PIL.Image import Image

PICTURE_PIXELS = 200_000_000  # of the labelled picture, A1111's bound
_READABLE = 128  # pixels of width for which labels have room; smaller pictures are enlarged
_PAGE_BYTES = 40_000_000  # of pictures as they are; beyond, the page holds them as WebP of quality 85
_WAYS = (("←", -1, 0), ("→", 1, 0), ("↑", 0, -1), ("↓", 0, 1))


@dataclass(frozen=True)
class Shown:
    """What a grid shows. tops, lefts, titles: labels of columns, rows and sheets. files: bytes of the PNGs and
    infotexts, x running fastest, then y, then z. heading, facts: what the page says above them.
    """

    tops: Sequence[str]
    lefts: Sequence[str]
    titles: Sequence[str]
    files: Sequence[bytes]
    infotexts: Sequence[str]
    heading: str
    facts: str


def picture(shown: Shown) -> Image:
    """All pictures with their labels, sheet below sheet; smaller ones where it would pass PICTURE_PIXELS."""
    from PIL import Image

    images = [open_picture(io.BytesIO(data)).convert("RGB") for data in shown.files]
    pixels = sum(image.width * image.height for image in images)
    if pixels > PICTURE_PIXELS:
        share = (PICTURE_PIXELS / pixels) ** 0.5
        images = [image.resize([max(1, int(side * share)) for side in image.size]) for image in images]
    zoom = max(1, _READABLE // max(image.width for image in images))
    columns, each = len(shown.tops), len(shown.tops) * len(shown.lefts)
    sheets = [
        sheet(
            images[i * each : (i + 1) * each],
            columns,
            shown.tops if any(shown.tops) else None,
            shown.lefts if any(shown.lefts) else None,
            title or None,
            zoom,
        )
        for i, title in enumerate(shown.titles)
    ]
    if len(sheets) == 1:
        return sheets[0]
    whole = Image.new("RGB", (max(one.width for one in sheets), sum(one.height for one in sheets)), PAPER)
    top = 0
    for one in sheets:
        whole.paste(one, (0, top))
        top += one.height
    return whole


def page(shown: Shown) -> str:
    """The text of the page. It loads nothing and runs nothing: pictures are inside, zoom is the style sheet's."""
    whole = sum(len(data) for data in shown.files) <= _PAGE_BYTES
    columns, rows = len(shown.tops), len(shown.lefts)
    sheets = []
    for k, title in enumerate(shown.titles):
        lines = []
        for j, left in enumerate(shown.lefts):
            cells = [_cell(shown, (i, j, k), whole) for i in range(columns)]
            lines.append((left, cells))
        sheets.append({"title": title, "tops": list(shown.tops), "rows": lines})
    assert rows * columns * len(shown.titles) == len(shown.files)
    style = style_sheet("grid.css")
    return render("grid.html", style=style, title=shown.heading, facts=shown.facts, sheets=sheets)


def _cell(shown: Shown, place: tuple[int, int, int], whole: bool) -> dict[str, Any]:
    x, y, z = place
    columns, rows = len(shown.tops), len(shown.lefts)
    index = (z * rows + y) * columns + x
    ways = [
        (arrow, _id(x + right, y + down, z))
        for arrow, right, down in _WAYS
        if 0 <= x + right < columns and 0 <= y + down < rows
    ]
    if z > 0:
        ways.append(("⇞", _id(x, y, z - 1)))
    if z + 1 < len(shown.titles):
        ways.append(("⇟", _id(x, y, z + 1)))
    data = shown.files[index]
    return {
        "id": _id(x, y, z),
        "label": ", ".join(filter(None, (shown.tops[x], shown.lefts[y], shown.titles[z]))),
        "ways": ways,
        "kind": "image/png" if whole else "image/webp",
        "data": base64.b64encode(data if whole else _as_webp(data)).decode(),
        "infotext": shown.infotexts[index],
    }


def _id(x: int, y: int, z: int) -> str:
    return f"z{z + 1}y{y + 1}x{x + 1}"


def _as_webp(data: bytes) -> bytes:
    file = io.BytesIO()
    open_picture(io.BytesIO(data)).convert("RGB").save(file, "WEBP", quality=85)
    return file.getvalue()
