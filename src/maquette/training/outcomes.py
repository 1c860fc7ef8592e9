"""What a step came to: its loss and the length of its gradient, which a graphics card tells when it gets there."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .batches import Batch
from .job import Job


class Outcome:
    """A step's loss and gradient norm on their way to the CPU; `loss`, `norm` and `finite` wait for them."""

    def __init__(self, step: int, batches: list[Batch], rate: float, loss: Tensor, norm: Tensor) -> None:
        self.step, self.batches, self.rate = step, batches, rate
        self.excused = False  # not finite for a known reason, which has been mended
        numbers = torch.stack([loss, norm.to(loss)]).detach()
        self._arrived: Any = None
        if numbers.is_cuda:
            here = torch.empty(2, dtype=numbers.dtype, pin_memory=True)
            numbers = here.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        self._numbers = numbers

    def _read(self) -> Tensor:
        if self._arrived is not None:
            self._arrived.synchronize()
            self._arrived = None
        return self._numbers

    @property
    def loss(self) -> float:
        return float(self._read()[0])

    @property
    def norm(self) -> float:
        return float(self._read()[1])

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss + self.norm)


def late(job: Job, processes: int) -> bool:
    """Whether steps are judged while the next is at work, so that the device never waits for the CPU.

    Not where a step that is not finite must change more than the optimizer can leave out by itself, nor in
    deterministic mode, where a run that is stopped by such steps ends exactly after them.
    """
    alone = processes == 1 and job.base.device.type == "cuda"
    simple = job.ema is None and not job.scaler.active and job.config.max_norm == 0
    return alone and simple and type(job.optimizer) is torch.optim.AdamW and not job.config.deterministic
