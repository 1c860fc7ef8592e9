"""What a ControlNet is shown of a picture: edges, lines, soft or coarse colours. Names and thresholds as in A1111's."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MaquetteError
from .edges import canny

if TYPE_CHECKING:
    from PIL.Image import Image

Preprocess = Callable[[Any, float, float], Any]
"""(H, W, 3) uint8, threshold_a, threshold_b -> (H, W) or (H, W, 3) uint8."""


@dataclass(frozen=True)
class Preprocessor:
    """A function and the two thresholds that it has when none are given."""

    run: Preprocess
    a: float = 0.0
    b: float = 0.0


def preprocess(picture: Image, name: str, a: float | None = None, b: float | None = None) -> Image:
    """A picture (RGB) as a preprocessor shows it, RGB of the same size. a, b: its thresholds.

    Raises MaquetteError, listing the names, for an unknown one.
    """
    from PIL import Image

    known = PREPROCESSORS.get(name)
    if known is None:
        near = difflib.get_close_matches(name, PREPROCESSORS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise MaquetteError(f"There is no preprocessor {name!r}.{hint} Preprocessors: {', '.join(PREPROCESSORS)}.")
    made = known.run(np.asarray(picture), known.a if a is None else a, known.b if b is None else b)
    return Image.fromarray(made).convert("RGB")


def _none(rgb: Any, a: float, b: float) -> Any:
    return rgb


def _scribble(rgb: Any, a: float, b: float) -> Any:
    """Lines darker than what is around them: where a wide blur is lighter than a narrow one by more than a / 2."""
    lighter = (_blurred(rgb, 5.0) - _blurred(rgb, 0.5)).min(axis=2)
    return np.where(2 * lighter > a, 255, 0).astype(np.uint8)


def _blur(rgb: Any, a: float, b: float) -> Any:
    return (_blurred(rgb, a) + 0.5).clip(0, 255).astype(np.uint8)


def _threshold(rgb: Any, a: float, b: float) -> Any:
    return np.where(rgb.min(axis=2) > a, 255, 0).astype(np.uint8)


def _invert(rgb: Any, a: float, b: float) -> Any:
    return 255 - rgb


def _tile(rgb: Any, a: float, b: float) -> Any:
    """1 / a of the size and back: what the picture is like from afar."""
    height, width = rgb.shape[:2]
    small = _resized(rgb, round(width / max(a, 1)), round(height / max(a, 1)), nearest=False)
    return _resized(small, width, height, nearest=False)


def _colour(rgb: Any, a: float, b: float) -> Any:
    """One colour for each square of a pixels."""
    height, width = rgb.shape[:2]
    small = _resized(rgb, round(width / max(a, 1)), round(height / max(a, 1)), nearest=False)
    return _resized(small, width, height, nearest=True)


def _blurred(rgb: Any, sigma: float) -> Any:
    from PIL import Image, ImageFilter

    return np.asarray(Image.fromarray(rgb).filter(ImageFilter.GaussianBlur(sigma))).astype(np.float64)


def _resized(rgb: Any, width: int, height: int, nearest: bool) -> Any:
    from PIL.Image import Resampling, fromarray

    how = Resampling.NEAREST if nearest else Resampling.BICUBIC
    return np.asarray(fromarray(rgb).resize((max(1, width), max(1, height)), how))


PREPROCESSORS: dict[str, Preprocessor] = {
    "none": Preprocessor(_none),
    "canny": Preprocessor(canny, 100, 200),
    "scribble": Preprocessor(_scribble, 32),
    "blur": Preprocessor(_blur, 9),
    "tile": Preprocessor(_tile, 2),
    "threshold": Preprocessor(_threshold, 127),
    "invert": Preprocessor(_invert),
    "colour": Preprocessor(_colour, 64),
}
