"""How the learning rate moves, what an optimizer's step is given, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..config import TrainConfig
from .optimizers import Lion as Lion
from .optimizers import make_optimizer as make_optimizer

POLYNOMIAL_END = 1e-7  # the learning rate at which "polynomial" ends, as transformers has it


def schedules(config: TrainConfig) -> bool:
    """Whether the learning rate moves at all: schedule-free optimizers take neither scheduler nor warm-up, and
    Adafactor's relative_step decides for itself.
    """
    return not (config.optimizer.startswith("schedule-free") or config.optimizer_args.get("relative_step"))


def steps_of(value: float, steps: int) -> int:
    """A number of steps, or below 1 a share of all of them, rounded down."""
    return int(value * steps) if value < 1 else int(value)


def rate_factor(config: TrainConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied with at a step (counted from 0).

    All as the functions of the same names in transformers.optimization, which sd-scripts calls: a warm-up of W steps
    begins at 0 and reaches 1 at step W.
    """
    if not schedules(config):
        return 1.0
    warm_up, least = steps_of(config.warmup_steps, steps), config.scheduler_min_ratio
    if step < warm_up:
        rising = step / warm_up
        return least + (1.0 - least) * rising if config.scheduler == "stable-decay" else rising
    done = (step - warm_up) / max(1, steps - warm_up)  # in [0, 1)
    if config.scheduler == "linear":
        return 1.0 - done
    if config.scheduler == "cosine":
        return least + (1.0 - least) * _cosine(done)
    if config.scheduler == "restarts":
        return _cosine(done * config.scheduler_cycles % 1.0)
    if config.scheduler == "polynomial":
        end = POLYNOMIAL_END / (config.learning_rate or 1e-4)
        return end + (1.0 - end) * (1.0 - done) ** config.scheduler_power
    if config.scheduler == "inverse-sqrt":
        scale = config.scheduler_timescale or warm_up or 10_000
        return (1.0 + (step - warm_up) / scale) ** -0.5
    if config.scheduler == "stable-decay":
        falling = steps_of(config.decay_steps, steps)
        return least + (1.0 - least) * _cosine(max(0.0, 1.0 - (steps - step) / max(1, falling)))
    return 1.0


def _cosine(done: float) -> float:
    """From 1 to 0 along half a wave."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate becomes its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def evaluate_mode(optimizer: torch.optim.Optimizer, evaluating: bool) -> None:
    """Schedule-free optimizers keep two sets of weights: the one to step from and the average to use."""
    switch = getattr(optimizer, "eval" if evaluating else "train", None)
    if switch is not None:
        switch()


@contextmanager
def evaluating(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block the weights to use. Afterwards those to step from, to the same bits: computing them back would
    leave others, so that a run would depend on when it was saved.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [p.detach().clone() for p in parameters]
    evaluate_mode(optimizer, True)
    try:
        yield
    finally:
        evaluate_mode(optimizer, False)
        with torch.no_grad():
            torch._foreach_copy_(parameters, kept)


class Average:
    """Exponential moving average of parameters: a <- d a + (1 - d) p, where d rises as (1 + n) / (10 + n) at first."""

    def __init__(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.count = 0
        self.values = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        decay = min(self._decay, (1 + self.count) / (10 + self.count))
        self.count += 1
        torch._foreach_lerp_(self.values, [p.detach() for p in self._parameters], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the parameters; twice is as if never."""
        for p, value in zip(self._parameters, self.values, strict=True):
            kept = p.detach().clone()
            p.copy_(value)
            value.copy_(kept)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Length of all gradients as one vector; not finite when any of them is not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    return torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))


@torch.no_grad()
def shorten(parameters: Iterable[nn.Parameter], norm: Tensor, longest: float) -> None:
    """Scale all gradients so that their norm is at most `longest`, without asking the device for the number."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (longest / (norm + 1e-6)).clamp(max=1.0))


def update(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], norm: Tensor, longest: float) -> None:
    """The optimizer's step, its gradients shortened to `longest` unless that is 0."""
    if longest:
        shorten(parameters, norm, longest)
    optimizer.step()


def update_where_finite(
    optimizer: torch.optim.AdamW, parameters: Iterable[nn.Parameter], loss: Tensor, norm: Tensor, longest: float
) -> None:
    """The same, left out by the device itself when the loss or the norm is not finite; fused AdamW can do that."""
    optimizer.found_inf = (~torch.isfinite(loss + norm)).float()  # type: ignore[attr-defined]
    update(optimizer, parameters, norm, longest)
