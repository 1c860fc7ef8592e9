"""How a drawing is ended before its time: after the batch at work, or after the step at work."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from torch import Tensor


class HalfDrawn(Exception):
    """The drawing was interrupted. latents: (B, 4, h, w), clean, as the denoiser saw them last, unit-scaled."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__("interrupted")
        self.latents = latents


@dataclass(frozen=True)
class Ends:
    """What a caller sets from another thread."""

    cancel: threading.Event
    interrupt: threading.Event

    def reached(self) -> bool:
        """Whether no further batch is begun."""
        return self.cancel.is_set() or self.interrupt.is_set()

    def after_step(self, x0: Tensor) -> None:
        """Raises HalfDrawn where the drawing is interrupted."""
        if self.interrupt.is_set():
            raise HalfDrawn(x0.float())
