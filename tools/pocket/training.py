"""What the four trainings share: learning-rate schedule, averaged weights, a state on disk that survives a kill."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

SAVE_SECONDS = 120.0


def warm_stable_decay(step: int, total: int, warmup: int = 200, decay: float = 0.3) -> float:
    """Learning-rate factor: linear warm-up, constant, a cosine to zero over the last `decay` share of the steps."""
    start = total * (1 - decay)
    if step < warmup:
        return (step + 1) / warmup
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1.0, total - start)))) + 1e-3


class Averaged:
    """Exponential moving average of a module's parameters and buffers (kept in fp32)."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay = module, decay
        self.values = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        state = self.module.state_dict()
        floats = [k for k, v in state.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.values[k] for k in floats], [state[k] for k in floats], 1 - decay)
        for k in state.keys() - floats:
            self.values[k].copy_(state[k])


class Run:
    """Step counter over a training that can be killed at any time and started again with the same call.

    `for step in run.steps(): …` yields the steps still to do and saves everything registered every two minutes.
    """

    def __init__(self, path: Path, total: int, parts: dict[str, object], writes: bool = True) -> None:
        self.path, self.total, self.parts, self.writes = path, total, parts, writes
        self.step, self.seconds = 0, 0.0
        if path.exists():
            saved = torch.load(path, weights_only=True)
            self.step, self.seconds = saved["step"], saved["seconds"]
            for name, part in parts.items():
                part.values = saved[name] if isinstance(part, Averaged) else part.load_state_dict(saved[name])  # type: ignore[attr-defined]

    def save(self) -> None:
        states = {n: p.values if isinstance(p, Averaged) else p.state_dict() for n, p in self.parts.items()}  # type: ignore[attr-defined]
        temporary = self.path.with_suffix(".tmp")
        torch.save({"step": self.step, "seconds": self.seconds, **states}, temporary)
        os.replace(temporary, self.path)

    def steps(self) -> Iterator[int]:
        began = last = time.monotonic()
        earlier, first = self.seconds, self.step
        while self.step < self.total:
            yield self.step
            self.step += 1
            self.seconds = earlier + time.monotonic() - began
            if self.writes and time.monotonic() - last > SAVE_SECONDS:
                self.save()
                last = time.monotonic()
        if self.writes and self.step > first:
            self.save()
