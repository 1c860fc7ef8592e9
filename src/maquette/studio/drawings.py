"""What a drawing is while it is made and when it is done, and why there is none."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

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
