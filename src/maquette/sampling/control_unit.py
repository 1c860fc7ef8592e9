"""The settings of one ControlNet, as the command line and A1111's extension (sd-webui-controlnet) write them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ..config import Fraction, StageConfig
from ..errors import MaquetteError

if TYPE_CHECKING:
    from PIL.Image import Image

MODES = {
    "balanced": "Balanced",
    "prompt": "My prompt is more important",
    "control": "ControlNet is more important",
}
RESIZE_MODES = {"just": "Just Resize", "crop": "Crop and Resize", "fill": "Resize and Fill"}
_KEYS = {"threshold_a": "a", "threshold_b": "b", "module": "preprocessor", "picture": "image"}
Threshold = Annotated[
    Annotated[float, Field(ge=0, le=4096, allow_inf_nan=False)] | None,
    BeforeValidator(lambda value: None if value in (-1, "-1") else value),
]


class ControlUnit(StageConfig):
    """One ControlNet and what it is shown."""

    model: str
    """The ControlNet: a file or a diffusers folder."""
    image: Path | None = None
    """What it is shown; otherwise the picture that is drawn from."""
    preprocessor: str = "none"
    """What is done to the picture first: none, canny, scribble, blur, tile, threshold, invert, colour."""
    weight: float = Field(default=1.0, ge=0, le=2)
    """How strongly it guides."""
    start: Fraction = 0.0
    """Share of the steps after which it begins."""
    end: Fraction = 1.0
    """Share of the steps after which it ends."""
    mode: Literal["balanced", "prompt", "control"] = "balanced"
    """What counts more: neither, the prompt, or the ControlNet, which then guides the prompt's side alone."""
    resize: Literal["just", "crop", "fill"] = "crop"
    """How its picture is brought to the size."""
    a: Threshold = None
    """The preprocessor's first threshold; otherwise, and for A1111's -1, its usual one."""
    b: Threshold = None
    """Its second threshold."""

    @model_validator(mode="after")
    def _guides_at_all(self) -> Self:
        if self.start > self.end:
            raise ValueError("it starts after its end and would never guide: give shares such as start=0.2, end=0.8")
        return self

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Of the command line: `canny.safetensors,image=house.png,preprocessor=canny,weight=0.8`; commas in names need
        quotation marks. Raises MaquetteError naming what is wrong.
        """
        values: dict[str, Any] = {}
        for part in next(csv.reader([text], skipinitialspace=True), []):
            key, equals, value = part.partition("=")
            key = key.strip().lower().replace("-", "_")
            if not equals or Path(part).exists():
                key, value = "model", part
            key = _KEYS.get(key, key)
            if key in values:
                raise MaquetteError(f"--control {text}: {key} is given twice, {values[key]} and {value.strip()}.")
            values[key] = value.strip()
        unit = cls.parse(values, f"--control {text}")
        from .pictures.preprocessors import PREPROCESSORS

        if unit.preprocessor not in PREPROCESSORS:
            raise MaquetteError(
                f"--control {text}: there is no preprocessor {unit.preprocessor!r}; known are "
                f"{', '.join(PREPROCESSORS)}."
            )
        return unit

    def hint(self, picture: Image, width: int, height: int) -> Image:
        """What the ControlNet sees of a picture (RGB): brought to the size, and preprocessed."""
        from .pictures.fitting import fitted
        from .pictures.preprocessors import preprocess

        return preprocess(fitted(picture, width, height, self.resize), self.preprocessor, self.a, self.b)

    def holds(self, step: int, steps: int) -> bool:
        """Whether it guides in a step, counted from 0, of so many."""
        return self.start <= step / steps <= self.end
