"""What a drawing is while it is made and when it is done, and why there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from .library import Weights

RETRY_SECONDS = 30


class Refused(MaquetteError):
    """Nothing is drawn now: a job trains, or too many wait. retry_after: seconds."""

    def __init__(self, message: str, retry_after: int = RETRY_SECONDS) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DrawingFailed(MaquetteError):
    """The drawing process ended or met a fault that is not the request's. kind: "memory", "internal" or "died"."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Picture:
    """A drawn picture as the bytes of a PNG that has its text inside."""

    png: bytes
    seed: int
    infotext: str
    prompt: str
    negative_prompt: str
    width: int
    height: int
    variation_seed: int | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any], data: bytes) -> Picture:
        """As the drawing process hands it over."""
        named = {key: message[key] for key in ("seed", "infotext", "prompt", "negative_prompt", "width", "height")}
        return cls(png=data, variation_seed=message.get("variation"), **named)


@dataclass(frozen=True)
class Drawing:
    """What a request gave. model_hash: sha256 of the base."""

    pictures: list[Picture]
    warnings: list[str]
    model: Weights
    model_hash: str
    interrupted: bool


@dataclass(frozen=True)
class Progress:
    """Where drawing stands; job_count is 0 when nothing is drawn. step: of all steps of the request."""

    job: str = ""
    job_count: int = 0
    job_no: int = 0
    step: int = 0
    steps: int = 0
    began: float = 0.0
    preview: bytes | None = field(default=None, repr=False)
    interrupted: bool = False
    text: str = ""

    @property
    def fraction(self) -> float:
        """0 to 1; exactly 0 when nothing is drawn."""
        if not self.job_count:
            return 0.0
        return min(1.0, 0.01 + 0.99 * self.step / self.steps) if self.steps else 0.01

    @property
    def eta_seconds(self) -> float:
        """What is left, as the time so far tells it."""
        if not self.step:
            return 0.0
        return (time.monotonic() - self.began) * (self.steps - self.step) / self.step


def failure_of(message: Mapping[str, Any]) -> MaquetteError:
    """What the drawing process says went wrong: of the request, or else."""
    kind, text = message["kind"], message["message"]
    return MaquetteError(text) if kind == "input" else DrawingFailed(text, kind)


def filed(request: dict[str, Any], place: Path) -> dict[str, Any]:
    """The request with pictures as files in a folder of its own."""

    def file(data: bytes, name: str) -> str:
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        (place / name).write_bytes(data)
        return str(place / name)

    for key in ("init_image", "mask"):
        if isinstance(request.get(key), bytes):
            request[key] = file(request[key], f"{key}.png")
    units: Sequence[Mapping[str, Any]] = request.get("controls", ())
    request["controls"] = [
        {**unit, "image": file(unit["image"], f"control-{i}.png")} if isinstance(unit.get("image"), bytes) else unit
        for i, unit in enumerate(units)
    ]
    return request
