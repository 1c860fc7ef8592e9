"""Optimizers by name, how the learning rate moves, and the average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...config import TrainConfig
from ...errors import MaquetteError


def rate_factor(config: TrainConfig, step: int, steps: int) -> float:
    """What the learning rates are multiplied with at a step (counted from 0)."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)  # in [0, 1)
    if config.scheduler == "linear":
        return 1.0 - done
    if config.scheduler == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * done))
    if config.scheduler == "restarts":
        return 0.5 * (1.0 + math.cos(math.pi * (done * config.scheduler_cycles % 1.0)))
    return 1.0


class Lion(torch.optim.Optimizer):
    """Steps of equal size along the sign of an interpolated momentum (arXiv 2302.06675, algorithm 2)."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - lr * group["weight_decay"])
                p.add_(momentum.lerp(p.grad, 1 - beta1).sign_(), alpha=-lr)
                momentum.lerp_(p.grad, 1 - beta2)


def make_optimizer(config: TrainConfig, groups: Mapping[str, list[nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimizer over the method's parameter groups, each with its learning rate as `base_lr`.

    Raises MaquetteError when the optimizer's package is not installed.
    """
    rates = {"unet": config.learning_rate or 1e-4, "text_encoder": config.text_encoder_learning_rate or 5e-5}
    rates["embedding"] = config.embedding_learning_rate or 2e-3
    table: list[dict[str, Any]] = []
    for name, parameters in groups.items():
        rate = rates[name.removesuffix("_up")] * (config.lora_plus_ratio if name.endswith("_up") else 1.0)
        table.append({"params": parameters, "lr": rate, "base_lr": rate, "name": name})
    decay = config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(table, weight_decay=decay, fused=True)
    if config.optimizer == "adamw8bit":
        return _eight_bit(table, weight_decay=decay)
    if config.optimizer == "sgd":
        return torch.optim.SGD(table, momentum=0.9, weight_decay=decay)
    if config.optimizer == "adafactor":
        return torch.optim.Adafactor(table, weight_decay=decay)
    if config.optimizer == "lion":
        return Lion(table, weight_decay=decay)
    if config.optimizer == "prodigy":
        return _foreign("Prodigy", table, weight_decay=decay, safeguard_warmup=True, bias_correction=True)
    return _foreign("ScheduleFreeAdamW", table, weight_decay=decay)


def _eight_bit(table: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    try:
        import bitsandbytes  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MaquetteError("The optimizer adamw8bit needs its package: pip install 'maquette[eight-bit]'.") from error
    made: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(table, **options)
    return made


def _foreign(name: str, table: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    try:
        import pytorch_optimizer
    except ImportError as error:
        raise MaquetteError(
            f"The optimizer {name} needs the package pytorch-optimizer: pip install pytorch-optimizer."
        ) from error
    made: torch.optim.Optimizer = getattr(pytorch_optimizer, name)(table, **options)
    return made


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Every group's learning rate becomes its base rate times the factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def evaluate_mode(optimizer: torch.optim.Optimizer, evaluating: bool) -> None:
    """Schedule-free optimizers keep two sets of weights: the one to step from and the average to use."""
    switch = getattr(optimizer, "eval" if evaluating else "train", None)
    if switch is not None:
        switch()


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
