"""Two runs beside each other: settings, photos and outcome that differ, and their pictures of the same prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..config.train import TrainConfig
from ..data.images import open_photo
from ..formats.png import write_png
from ..report.samples import drawn
from ..report.sheet import sheet
from ..run_folder import RunFolder

PLACES = {"out"}  # differs between any two runs
MOST = 8  # prompts shown
SMALLEST = 192  # pixels of a shown picture


def differences(one: RunFolder, other: RunFolder) -> list[tuple[str, str, str]]:
    """(what, in the first, in the second): keys of run.toml, photos and captions, loss at the end, the choice."""
    a, b = (TrainConfig.read(folder.config) for folder in (one, other))
    keys = [key for key in TrainConfig.model_fields if key not in PLACES and getattr(a, key) != getattr(b, key)]
    found = [(key, _text(getattr(a, key)), _text(getattr(b, key))) for key in keys]
    outcomes = (_outcome(folder) for folder in (one, other))
    first, second = (dict(outcome) for outcome in outcomes)
    found += [(key, first[key], second[key]) for key in first if first[key] != second[key]]
    return found


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _outcome(folder: RunFolder) -> list[tuple[str, str]]:
    trained = [photo for photo in folder.read_photos() if photo.get("role") == "instance"]
    contents = sorted((str(p.get("sha256")), str(p.get("caption"))) for p in trained)
    losses = [line["loss"] for line in folder.read_metrics()][-20:]
    evaluation = folder.read_evaluation()
    return [
        ("photos trained on", f"{len(trained)}: {_digest([sha for sha, _ in contents])}"),
        ("captions", _digest([caption for _, caption in contents])),
        ("loss at the end", f"{sum(losses) / len(losses):.4f}" if losses else ""),
        (
            "chosen",
            f"step {evaluation['step']} at {evaluation['weight']}" if {"step", "weight"} <= evaluation.keys() else "",
        ),
        ("size of the file", str(folder.chosen.stat().st_size) if folder.chosen else ""),
    ]


def _digest(texts: list[str]) -> str:
    import hashlib

    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def side_by_side(one: RunFolder, other: RunFolder, target: Path) -> Path | None:
    """Write a picture: prompts that both drew down, the runs across; None where they have none in common."""
    columns = [_shown(folder) for folder in (one, other)]
    prompts = [prompt for prompt in columns[0][1] if prompt in columns[1][1]][:MOST]
    if not prompts:
        return None
    images = [open_photo(column[1][prompt]) for prompt in prompts for column in columns]
    heads = [f"{folder.name}, step {column[0]}" for folder, column in zip((one, other), columns, strict=True)]
    zoom = max(1, SMALLEST // max(image.width for image in images))
    write_png(sheet(images, 2, heads, prompts, zoom=zoom), target)
    return target


def _shown(folder: RunFolder) -> tuple[int, dict[str, Path]]:
    """Step and pictures by prompt: of the chosen checkpoint where it has some, else of the last that has."""
    evaluation = folder.read_evaluation()
    places = folder.sample_folders()
    order = [evaluation["step"]] if evaluation.get("step") in places else []
    for step in [*order, *sorted(places, reverse=True)]:
        if prompts := drawn(places[step]):
            return step, {prompt: places[step] / f"{i}.png" for i, prompt in enumerate(prompts)}
    return 0, {}
