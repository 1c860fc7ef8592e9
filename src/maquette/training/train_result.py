"""What a training run came to."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class TrainResult:
    """A run: finished, or stopped early and ready to go on."""

    run: str
    product: str  # what the file is: "adapter", "embedding" or "model"
    file: str | None  # the chosen checkpoint; None when stopped early
    report: str
    start: int  # the step after which this part of the run began: 0 unless it was resumed
    step: int
    steps: int
    status: str  # "finished" or "stopped"
    loss: float | None  # mean over the last steps
    seconds: float  # of this part
    images_per_second: float
    checkpoints: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    chosen: int | None = None  # step of the checkpoint that `file` is
    memory_bytes: int | None = None  # the most that was needed: of the card, or of this process; None: not known here
    weight: float | None = None  # at which it is best, where that was measured
    reasons: list[str] = field(default_factory=list)  # of the choice

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Pace:
    """How fast a part of a run trains. training_seconds: of steps alone; images: that they saw."""

    began: float = field(default_factory=time.perf_counter)
    training_seconds: float = 0.0
    images: int = 0

    @property
    def seconds(self) -> float:
        """Since the part began, previews and files included."""
        return time.perf_counter() - self.began

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.training_seconds, 1e-9)
