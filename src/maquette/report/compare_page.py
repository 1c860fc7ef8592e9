"""The page of `maquette compare`: the answers, the table, the pictures."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from ..data.images import open_photo
from ..files import read_bytes, shown_bytes, write_text
from ..formats.png import write_png
from ..limits import PHOTO_BYTES
from .pages import render, style_sheet
from .sheet import sheet

AXES: dict[str, str] = {
    "likeness": "like the photos",
    "identity": "recognised",
    "obedience": "obeys prompts",
    "neighbours": "other things right",
    "neighbour_drift": "other things changed",
    "edit_retention": "prompts steer",
    "copying": "copies",
    "diversity": "diversity",
}
SHOWN = 4  # prompts of the pictures
SMALLEST = 160


def write(result: dict[str, Any], out: Path) -> None:
    """compare.html and pictures.png. result: as `CompareResult.to_json` has it."""
    trainings = result["trainings"]
    heads = [_head(one) for one in trainings]
    prompts = trainings[0]["prompts"][:SHOWN]
    images = [open_photo(one["pictures"][i]) for i in range(len(prompts)) for one in trainings]
    zoom = max(1, SMALLEST // images[0].width)
    write_png(sheet(images, len(trainings), heads, prompts, zoom=zoom), out / "pictures.png")
    rows = [(prompt, [_picture(one["pictures"][i]) for one in trainings]) for i, prompt in enumerate(prompts)]
    page = render(
        "compare.html",
        style=style_sheet("report.css"),
        title=out.name,
        answers=result["answers"],
        left_out=result["left_out"],
        columns=["", *table_heads()],
        table=[(head, *table_row(one)) for head, one in zip(heads, trainings, strict=True)],
        heads=heads,
        rows=rows,
    )
    write_text(out / "compare.html", page)


def table_heads() -> list[str]:
    return ["score", *AXES.values(), "step × weight", "file", "training", "memory"]


def table_row(one: dict[str, Any]) -> list[str]:
    """A training's cells, as text."""
    values = one["values"]
    memory = "" if one["memory_bytes"] is None else shown_bytes(one["memory_bytes"])
    axes = [f"{values[name]:.2f}" if name in values else "" for name in AXES]
    over = " ✕" if one["overtrained"] else ""
    place = f"{one['step']} × {one['weight']:g}{over}"
    return [f"{one['score']:.2f}", *axes, place, shown_bytes(one["file_bytes"]), f"{one['seconds']:.0f} s", memory]


def _head(one: dict[str, Any]) -> str:
    return str(one["name"]) if one["used"] == one["base"] else f"{one['name']} on {Path(one['used']).stem}"


def _picture(path: str) -> str:
    return base64.b64encode(read_bytes(path, PHOTO_BYTES, "picture")).decode()
