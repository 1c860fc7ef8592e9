"""Loss and gradient norm of a step, copied to the CPU without waiting for the device."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .batches import Batch
from .job import Job


class StepResult:
    """Loss and gradient norm of a step. Reading `loss`, `norm` or `finite` waits until the device has them."""

    def __init__(self, step: int, batches: list[Batch], rate: float, loss: Tensor, norm: Tensor) -> None:
        self.step, self.batches, self.rate = step, batches, rate
        self.overflowed = False  # not finite because the loss scale was too large; it has been lowered
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


def may_defer(job: Job, processes: int) -> bool:
    """Whether a step may be checked while the next is computed, so that the device never waits for the CPU.

    Not where a step that is not finite must change more than the optimizer can leave out by itself, nor in
    deterministic mode, where a run that is stopped by such steps ends exactly after them.
    """
    alone = processes == 1 and job.base.device.type == "cuda"
    simple = job.ema is None and not job.scaler.active and job.config.scale_weight_norms == 0
    return alone and simple and type(job.optimizer) is torch.optim.AdamW and not job.config.deterministic
