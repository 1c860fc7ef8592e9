"""The findings of `maquette check` as one self-contained page: every photo with its crop, caption and warnings."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.dataset import Photo
from ..data.images import read_photo
from ..files import write_text
from ..report.pages import render

if TYPE_CHECKING:
    from .check import CheckResult

THUMBNAIL = 260  # pixels of the longer side
MOST_PHOTOS = 400  # a page with more would be too heavy to open; the rest is counted

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 1200px; padding: 0 1rem; color: #222; }
.photos { display: grid; grid-template-columns: repeat(auto-fill, minmax(270px, 1fr)); gap: 1.2rem; }
.photo { border: 1px solid #ddd; border-radius: 6px; padding: .6rem; }
.frame { position: relative; display: inline-block; overflow: hidden; line-height: 0; }
.crop { position: absolute; outline: 2px solid #0a7; box-shadow: 0 0 0 2000px rgba(255, 255, 255, .65); }
.name { font-weight: 600; overflow-wrap: anywhere; } .small { color: #555; font-size: 13px; }
.warning { color: #a50; } .blocking { color: #b00; font-weight: 600; }
"""


def write_page(result: CheckResult, path: Path) -> None:
    """Write the page, atomically. Photos are read again for their thumbnails."""
    photos = result.dataset.photos
    chosen = list(zip(photos, result.photos, strict=True))[:MOST_PHOTOS]
    shown = [_entry(photo, facts, result) for photo, facts in chosen]
    page = render(
        "check.html",
        style=_STYLE + "".join(f"#p{i} .crop {{ {entry['style']} }}\n" for i, entry in enumerate(shown, 1)),
        title=f"Photos in {result.folder}",
        figures=result.figures(),
        rule=[*result.observations, *result.golden_rule.sentences()],
        problems=result.problems,
        photos=shown,
        more=max(0, len(photos) - MOST_PHOTOS),
    )
    write_text(path, page)


def _entry(photo: Photo, facts: Mapping[str, Any], result: CheckResult) -> dict[str, object]:
    image = read_photo(photo.path).image
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=80)
    assert photo.crop is not None
    left, top, right, bottom = photo.crop.box
    width, height = photo.size
    style = (
        f"left:{left / width:.2%};top:{top / height:.2%};"
        f"width:{(right - left) / width:.2%};height:{(bottom - top) / height:.2%}"
    )
    times = "once" if photo.repeats == 1 else f"{photo.repeats} times"
    return {
        "data": base64.b64encode(buffer.getvalue()).decode(),
        "width": image.width,
        "height": image.height,
        "style": style,
        "name": photo.name,
        "caption": photo.caption or "(no caption)",
        "facts": f"{width} x {height}, trained at {photo.bucket[0]} x {photo.bucket[1]}, {times} per epoch"
        + f", caption of {facts['tokens']} tokens"
        + (", regularization" if photo.role == "class" else ""),
        "messages": [*photo.notes, *(p.message for p in result.problems if p.photo == photo.name)],
    }
