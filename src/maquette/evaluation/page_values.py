"""What the page shows of a verdict: the map of steps and weights, the curves, photos beside drawn pictures."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

from torch import Tensor

from .choice import Row, faults
from .drawing import picture_of
from .example import Example
from .reasons import phrase, summary
from .search import main_weight
from .verdict import Verdict

CURVES: dict[str, str] = {
    "likeness": "Likeness to the photos",
    "obedience_margin": "Prompts steer",
    "neighbours_margin": "Other things stay",
    "neighbour_drift": "Change of other things",
    "held_benefit": "Held-out photos predicted better",
    "edit_retention": "Edit retention",
    "face_likeness": "Face like the photos'",
    "face_found": "Pictures with a face",
}
WIDTH, HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 320, 150, 36, 10, 22, 10


ENCODERS = {"dino": "DINO ↑", "clip_i": "CLIP-I ↑", "clip_t": "CLIP-T ↑", "pres": "PRES ↓", "div": "DIV ↑"}


def values(verdict: Verdict, photos: Sequence[Example], encoders: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """For the template: JSON-like, pictures as base64 of PNG. encoders: rows of `dreambench`."""
    choice = verdict.choice
    return {
        "unit": verdict.unit,
        "step": choice.step,
        "weight": f"{choice.weight:g}",
        "summary": summary(choice.row),
        "reasons": list(verdict.reasons[1:]),  # the first says what the heading does
        "prefer": choice.prefer,
        "map": _map(verdict),
        "curves": [_curve(verdict, name, title) for name, title in CURVES.items() if name in choice.row.values],
        "pairs": [
            {
                "prompt": shown.prompt,
                "drawn": png(shown.pixels),
                "photo": png(photos[shown.photo].pixels / 2 + 0.5),
                "name": photos[shown.photo].name,
                "like": "" if shown.reference is None else png(shown.reference),
                "copied": shown.copy,
            }
            for shown in verdict.shown
        ],
        "held": list(verdict.held),
        "hard": [
            {
                "name": photo.name,
                "caption": next((e.caption for e in photos if e.name == photo.name), ""),
                "picture": next((png(e.pixels / 2 + 0.5) for e in photos if e.name == photo.name), ""),
                "times": f"{photo.loss / max(photo.usual, 1e-6):.1f}",
            }
            for photo in verdict.hard
        ],
        "encoders": {
            "heads": list(ENCODERS.values()),
            "rows": [
                (row["name"], ["–" if row[key] is None else f"{row[key]:.3f}" for key in ENCODERS]) for row in encoders
            ],
        },
        "noisy": verdict.noise is not None,
        "figures": _figures(verdict),
    }


def png(pixels: Tensor, most: int = 256) -> str:
    """(3, H, W) in [0, 1] -> base64 of a PNG, no side longer than `most` pixels."""
    image = picture_of(pixels)
    image.thumbnail((most, most))
    buffer = BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _map(verdict: Verdict) -> dict[str, Any]:
    """Weights across, steps down; of each cell the score as a part of the best, and what is wrong with it."""
    choice = verdict.choice
    weights = sorted({row.weight for row in verdict.rows})
    best = max(choice.scores)
    scores = {(row.step, row.weight): score for row, score in zip(verdict.rows, choice.scores, strict=True)}
    rows = {(row.step, row.weight): row for row in verdict.rows}
    same = {(row.step, row.weight) for row in choice.accepted}
    lines = []
    for step in sorted({row.step for row in verdict.rows}):
        cells: list[dict[str, Any] | None] = []
        for weight in weights:
            row = rows.get((step, weight))
            if row is None:
                cells.append(None)
                continue
            share = scores[step, weight] / best if best > 0 else 0.0
            wrong = faults(row.values, choice.rule)
            cells.append(
                {
                    "share": f"{100 * share:.0f}",
                    "level": min(9, int(10 * max(0.0, min(share, 0.999)))),
                    "chosen": row is choice.row,
                    "same": (step, weight) in same,
                    "wrong": "; ".join(phrase(fault) for fault in wrong),
                }
            )
        lines.append({"step": step, "cells": cells})
    return {"weights": [f"{weight:g}" for weight in weights], "lines": lines}


def _line(verdict: Verdict) -> list[Row]:
    """The rows at the weight that most steps were measured at, in the order of steps."""
    usual = main_weight(verdict.rows)
    return sorted((row for row in verdict.rows if row.weight == usual), key=lambda row: row.step)


def _curve(verdict: Verdict, name: str, title: str) -> dict[str, Any]:
    """One measure over the steps: points of a polyline, the band of steps that do not differ, the chosen step."""
    rows, choice = _line(verdict), verdict.choice
    numbers = [row.values[name] for row in rows]
    limit = choice.rule.least.get(name, choice.rule.most.get(name))
    low = min([0.0, *numbers])
    high = max([1.0 if name != "held_benefit" else 0.1, *numbers, *([limit] if limit is not None else [])])
    first, last = rows[0].step, rows[-1].step

    def x(step: float) -> float:
        return LEFT + (step - first) / max(1, last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / max(1e-9, high - low) * (HEIGHT - TOP - BOTTOM)

    accepted = [row.step for row in choice.accepted]
    window = (max(first, min(accepted)), min(last, max(accepted)))
    return {
        "title": title,
        "points": " ".join(f"{x(row.step):.1f},{y(value):.1f}" for row, value in zip(rows, numbers, strict=True)),
        "noise": _band(verdict, name, rows, x, y),
        "dots": [(f"{x(row.step):.1f}", f"{y(value):.1f}") for row, value in zip(rows, numbers, strict=True)],
        "limit": None if limit is None else f"{y(limit):.1f}",
        "window": (f"{x(window[0]) - 4:.1f}", f"{max(8.0, x(window[1]) - x(window[0]) + 8):.1f}"),
        "chosen": f"{x(min(max(choice.step, first), last)):.1f}",
        "ticks": [(f"{y(value):.1f}", f"{value:.2g}") for value in (low, high)],
        "first": first,
        "last": last,
        "width": WIDTH,
        "height": HEIGHT,
        "axes": f"M{LEFT},{TOP} V{HEIGHT - BOTTOM} H{WIDTH - RIGHT}",
    }


def _band(
    verdict: Verdict, name: str, rows: Sequence[Row], x: Callable[[float], float], y: Callable[[float], float]
) -> str | None:
    """Points of the polygon of one standard deviation of noise around a curve."""
    spread = verdict.noise.measures.get(name, 0.0) if verdict.noise else 0.0
    if not spread:
        return None
    above, below = ([f"{x(row.step):.1f},{y(row.values[name] + s):.1f}" for row in rows] for s in (spread, -spread))
    return " ".join([*above, *below[::-1]])


def _figures(verdict: Verdict) -> list[tuple[str, list[str]]]:
    """Each measure of each row, as a table for those who want to know."""
    names = [name for name in verdict.choice.row.values]
    noise = verdict.noise.measures if verdict.noise else None
    head = ("", [f"{row.step} @ {row.weight:g}" for row in verdict.rows] + (["noise"] if noise else []))
    lines = [
        (
            name,
            [f"{row.values.get(name, float('nan')):.2f}" for row in verdict.rows]
            + ([f"± {noise.get(name, 0.0):.3f}"] if noise else []),
        )
        for name in names
    ]
    return [head, *lines]
