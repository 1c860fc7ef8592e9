"""`maquette inspect A --compare B`: what differs between two models or two LoRAs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import adapters
from ..errors import MaquetteError
from ..events import Event, Listener, progress
from ..files import atomic_writer
from ..report.bars import bars
from ..weights import stream
from ..weights.compare import Comparison, compare_adapters, compare_models

_MODELS, _LORAS = ("model",), ("lora",)


def compare(path: Path, kind: str, other: Path, picture: Path | None, on_event: Listener) -> dict[str, Any]:
    """The comparison as tables of numbers; with `picture` also as a PNG. kind: what `path` is, as `inspect` found.

    Raises MaquetteError for two files of different kinds or families, and for a picture that exists already.
    """
    if kind not in _MODELS + _LORAS:
        raise MaquetteError(f"{path} is neither a whole model nor a LoRA; two of one kind can be compared.")
    if picture is not None and picture.exists():
        raise MaquetteError(f"{picture} exists already; choose another name with --picture.")
    if kind in _LORAS:
        found = compare_adapters(adapters.load(path), adapters.load(other))
    else:
        found = compare_models(stream.open_model(path), stream.open_model(other), progress(on_event, "comparing"))
    if picture is not None:
        _draw(found, path, other, picture)
        on_event(Event("saved", {"path": str(picture)}))
    return {
        "other": str(other),
        "kind": found.kind,
        "blocks": [block.to_json() for block in found.blocks],
        "whole": found.whole.to_json(),
        "only_here": found.only_a,
        "only_in_other": found.only_b,
        "not_compared": found.unlike,
    }


def _draw(found: Comparison, path: Path, other: Path, picture: Path) -> None:
    rows = []
    for block in found.blocks:
        cosine = "" if block.cosine is None else f", cosine {block.cosine:.3f}"
        rows.append((block.name, 100 * block.relative, f"{100 * block.relative:.3g} %{cosine}"))
    title = f"{path.name} against {other.name}: size of the difference in % of the first"
    with atomic_writer(picture) as file:
        bars(rows, title, file)
