"""The findings of `maquette check` as one self-contained page: every photo with its crop, caption and warnings."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.dataset import Photo
from ..data.images import read_photo
from ..run import write_text
from ..shown import visible

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
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<title>{{ title }}</title><style>{{ style|safe }}</style></head><body>
<h1>{{ title }}</h1>
<ul>{% for line in figures %}<li>{{ line }}</li>{% endfor %}</ul>
<h2>What will be learned</h2>
<ul>{% for line in rule %}<li>{{ line }}</li>{% endfor %}</ul>
{% if problems %}<h2>To look at</h2>
<ul>{% for p in problems %}<li class="{{ 'blocking' if p.blocking else 'warning' }}">
{%- if p.left_out %}left out: {% endif %}{{ p.message }}</li>{% endfor %}</ul>{% endif %}
<h2>Photos</h2>
<p class="small">The frame is what training sees.</p>
<div class="photos">{% for p in photos %}
<div class="photo" id="p{{ loop.index }}"><div class="frame"><img src="data:image/jpeg;base64,{{ p.data }}"
width="{{ p.width }}" height="{{ p.height }}" alt=""><div class="crop"></div></div>
<div class="name">{{ p.name }}</div><div>{{ p.caption }}</div>
<div class="small">{{ p.facts }}</div>
{% for message in p.messages %}<div class="small warning">{{ message }}</div>{% endfor %}</div>{% endfor %}
</div>{% if more %}<p>… and {{ more }} more photos.</p>{% endif %}
</body></html>
"""


def write_page(result: CheckResult, path: Path) -> None:
    """Write the page, atomically. Photos are read again for their thumbnails."""
    from jinja2 import Environment

    photos = result.dataset.photos
    chosen = list(zip(photos, result.photos, strict=True))[:MOST_PHOTOS]
    shown = [_entry(photo, facts, result) for photo, facts in chosen]
    style = _STYLE + "".join(f"#p{i} .crop {{ {entry['style']} }}\n" for i, entry in enumerate(shown, 1))
    page = (
        Environment(autoescape=True, finalize=lambda value: visible(value, lines=True) if type(value) is str else value)
        .from_string(_PAGE)
        .render(
            title=f"Photos in {result.folder}",
            figures=result.figures(),
            rule=[*result.observations, *result.golden_rule.sentences()],
            problems=result.problems,
            photos=shown,
            style=style,
            policy=_policy(style),
            more=max(0, len(photos) - MOST_PHOTOS),
        )
    )
    write_text(path, page)


def _policy(style: str) -> str:
    """Nothing is loaded or run: the page has its own pictures and this very style alone."""
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


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
