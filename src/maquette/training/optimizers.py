"""Optimizers by name, with the arguments that their own libraries know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ..config import OPTIMIZER_ARGS, TrainConfig
from ..errors import MaquetteError
from .adafactor import Adafactor
from .uncompiled import SGD, AdamW, Uncompiled

# What pytorch-optimizer calls arguments that prodigyopt, Kohya's library, calls otherwise.
PRODIGY_NAMES = {"decouple": "weight_decouple", "use_bias_correction": "bias_correction"}
SCHEDULE_FREE = {
    "schedule-free-adamw": "ScheduleFreeAdamW",
    "schedule-free-radam": "ScheduleFreeRAdam",
    "schedule-free-sgd": "ScheduleFreeSGD",
}


class Lion(Uncompiled):
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
    def step(self, closure: Any = None) -> Any:
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
        if config.optimizer == "prodigy":  # takes the first group's for all
            rate = config.learning_rate or 1.0
        table.append({"params": parameters, "lr": rate, "base_lr": rate, "name": name})
    return _make(config.optimizer, table, {"weight_decay": config.weight_decay, **arguments(config)})


def arguments(config: TrainConfig) -> dict[str, Any]:
    """The optimizer's further arguments: the user's, else our defaults; None where its library decides."""
    return OPTIMIZER_ARGS[config.optimizer] | {
        key: tuple(value) if isinstance(value, list) else value for key, value in config.optimizer_args.items()
    }


def _make(name: str, table: list[dict[str, Any]], options: dict[str, Any]) -> torch.optim.Optimizer:
    if name == "adamw":
        return AdamW(table, fused=True, **options)
    if name == "adamw8bit":
        return _eight_bit(table, **options)
    if name == "sgd":
        return SGD(table, **options)
    if name == "adafactor":
        return Adafactor(table, **options)  # each group has its own rate
    if name == "lion":
        return Lion(table, **options)
    if name == "prodigy":
        return _foreign("Prodigy", table, **{PRODIGY_NAMES.get(key, key): value for key, value in options.items()})
    return _foreign(SCHEDULE_FREE[name], table, **options)


def _eight_bit(table: list[dict[str, Any]], **options: Any) -> torch.optim.Optimizer:
    try:
        import bitsandbytes  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MaquetteError("The optimizer adamw8bit needs: pip install 'maquette-lora[eight-bit]'.") from error
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
