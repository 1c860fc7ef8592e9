"""A picture of bars with a label and a number each: how much differs in each block of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO


def bars(rows: Sequence[tuple[str, float, str]], title: str, file: BinaryIO) -> None:
    """Write a PNG of horizontal bars, the first on top. rows: label, length (0 or more) and the text behind the bar.

    Raises ValueError for a picture without rows.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise ValueError("there is nothing to draw")
    figure = Figure(figsize=(8, 1.1 + 0.28 * len(rows)), layout="constrained")
    axes = figure.subplots()
    lengths = [length for _, length, _ in rows]
    axes.barh(range(len(rows)), lengths, color="#3b6ea5")
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    axes.invert_yaxis()
    most = max(lengths) or 1.0
    axes.set_xlim(0, 1.3 * most)
    for place, (_, length, text) in enumerate(rows):
        axes.text(length + 0.01 * most, place, text, va="center", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(title, loc="left", fontsize=10)
    figure.savefig(file, dpi=120, format="png")
