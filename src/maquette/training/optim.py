"""Learning-rate schedules, gradient clipping and the optimizer's step."""

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


def lr_multiplier(config: TrainConfig, step: int, steps: int) -> float:
    """Return the factor of the learning rates at a step (counted from 0): warm-up and lr_scheduler.

    All as the functions of the same names in transformers.optimization, which sd-scripts calls: a warm-up of W steps
    begins at 0 and reaches 1 at step W.
    """
    if not schedules(config):
        return 1.0
    steps = config.schedule_steps or steps
    warm_up, least = steps_of(config.warmup_steps, steps), config.lr_scheduler_min_ratio
    if step < warm_up:
        rising = step / warm_up
        return least + (1.0 - least) * rising if config.lr_scheduler == "stable-decay" else rising
    done = (step - warm_up) / max(1, steps - warm_up)  # in [0, 1)
    if config.lr_scheduler == "linear":
        return 1.0 - done
    if config.lr_scheduler == "cosine":
        return least + (1.0 - least) * _cosine(done)
    if config.lr_scheduler == "restarts":
        return _cosine(done * config.lr_scheduler_cycles % 1.0)
    if config.lr_scheduler == "polynomial":
        end = POLYNOMIAL_END / (config.learning_rate or 1e-4)
        result: float = end + (1.0 - end) * (1.0 - done) ** config.lr_scheduler_power
        return result
    if config.lr_scheduler == "inverse-sqrt":
        scale = config.lr_scheduler_timescale or warm_up or 10_000
        result = (1.0 + (step - warm_up) / scale) ** -0.5
        return result
    if config.lr_scheduler == "stable-decay":
        falling = steps_of(config.decay_steps, steps)
        return least + (1.0 - least) * _cosine(max(0.0, 1.0 - (steps - step) / max(1, falling)))
    return 1.0


def _cosine(done: float) -> float:
    """From 1 to 0 along half a wave."""
    return 0.5 * (1.0 + math.cos(math.pi * done))


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Set each parameter group's learning rate to its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def schedule_free_eval(optimizer: torch.optim.Optimizer, evaluating: bool) -> None:
    """Switch a schedule-free optimizer's parameters to the averaged weights (evaluation) or back to those it trains."""
    switch = getattr(optimizer, "eval" if evaluating else "train", None)
    if switch is not None:
        switch()


@contextmanager
def evaluation_weights(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block a schedule-free optimizer's parameters are the averaged weights. Afterwards the trained ones are
    restored bit for bit: computed back they would differ, and a run would depend on when it was saved.
    """
    if not hasattr(optimizer, "eval"):
        yield
        return
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [p.detach().clone() for p in parameters]
    schedule_free_eval(optimizer, True)
    try:
        yield
    finally:
        schedule_free_eval(optimizer, False)
        with torch.no_grad():
            torch._foreach_copy_(parameters, kept)


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Return the norm () of all gradients as one vector; not finite when any gradient is not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = torch._foreach_norm(gradients)
    result: Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms]))
    return result


@torch.no_grad()
def clip_grad_norm_(parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float) -> None:
    """Clip all gradients to `max_norm`, in place, as torch's function of this name, but without waiting for the device.

    norm: what `gradient_norm` returned.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    torch._foreach_mul_(gradients, (max_norm / (norm + 1e-6)).clamp(max=1.0))


def optimizer_step(
    optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], norm: Tensor, max_norm: float
) -> None:
    """Clip the gradients to `max_norm` (0: not at all) and step."""
    if max_norm:
        clip_grad_norm_(parameters, norm, max_norm)
    optimizer.step()


def optimizer_step_if_finite(
    optimizer: torch.optim.AdamW, parameters: Iterable[nn.Parameter], loss: Tensor, norm: Tensor, max_norm: float
) -> None:
    """Clip and step, unless the loss or the norm is not finite: the device itself decides that, in fused AdamW."""
    setattr(optimizer, "found_inf", (~torch.isfinite(loss + norm)).float())  # noqa: B010 (fused AdamW reads it)
    optimizer_step(optimizer, parameters, norm, max_norm)
