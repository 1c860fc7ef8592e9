"""Adafactor (Shazeer & Stern 2018, arXiv 1804.04235): of a matrix's squared gradients only sums of rows and columns are
kept. PyTorch's own knows neither relative steps nor steps without a parameter's scale, which other trainers have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from .uncompiled import Uncompiled


def rms(x: Tensor) -> Tensor:
    """Root mean square, a scalar; equation (9) of the paper's section 6 clips updates by it."""
    result: Tensor = x.norm(2) / x.numel() ** 0.5
    return result


class Adafactor(Uncompiled):
    """Algorithm 4 for matrices and, over their last two axes, for kernels; algorithm 5 for vectors.

    eps: epsilon_1, added to squared gradients, and epsilon_2, the least scale of a parameter. clip_threshold: d.
    decay_rate: the exponent of t in beta2_t = 1 - t^decay_rate (section 7.2). beta1: momentum, which keeps one number
    for each of the parameter's; None for none. weight_decay: share of the step taken off the parameter.
    scale_parameter: steps in proportion to a parameter's size (section 8). relative_step: rho_t = 1 / sqrt(t), at most
    0.01, with warmup_init at most t / 1e6, instead of the group's learning rate.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ) -> None:
        defaults = {"lr": lr, "eps": eps, "clip_threshold": clip_threshold, "decay_rate": decay_rate, "beta1": beta1}
        defaults |= {"weight_decay": weight_decay, "scale_parameter": scale_parameter}
        super().__init__(params, defaults | {"relative_step": relative_step, "warmup_init": warmup_init})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    wide = torch.promote_types(parameter.dtype, torch.float32)
                    x = parameter.to(wide)  # the parameter itself, unless it is narrower
                    self._move(x, parameter.grad.to(wide), self.state[parameter], group)
                    if x is not parameter:
                        parameter.copy_(x)

    def _move(self, x: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of parameter x with gradient g; both of any shape, (…, n, m) for matrices."""
        t = state["step"] = state.get("step", 0) + 1
        alpha = self._step_size(x, t, group)
        u = _preconditioned(g, state, 1.0 - t ** group["decay_rate"], group["eps"][0])  # U_t, as g
        u.div_((rms(u) / group["clip_threshold"]).clamp_(min=1.0)).mul_(alpha)  # Û_t, as g
        if group["beta1"] is not None:
            m = state.setdefault("exp_avg", torch.zeros_like(g))  # as g
            u = m.mul_(group["beta1"]).add_(u, alpha=1 - group["beta1"])
        if group["weight_decay"] != 0:
            x.add_(x, alpha=-group["weight_decay"] * alpha)
        x.sub_(u)

    @staticmethod
    def _step_size(x: Tensor, t: int, group: dict[str, Any]) -> Any:
        """alpha_t = max(epsilon_2, RMS(X_{t-1})) rho_t."""
        rho = group["lr"]
        if group["relative_step"]:
            rho = min(1e-6 * t if group["warmup_init"] else 1e-2, t**-0.5)
        return max(group["eps"][1], rms(x)) * rho if group["scale_parameter"] else rho


def _preconditioned(g: Tensor, state: dict[str, Any], beta2: float, eps1: float) -> Tensor:
    """U_t = G_t / sqrt(V_t), as g: V_t is the running mean of squared gradients, of a matrix R_t C_t / 1^T R_t."""
    squared = g**2 + eps1  # (…, n, m) or (n,)
    if g.ndim < 2:
        v = state.setdefault("exp_avg_sq", torch.zeros_like(g)).mul_(beta2)  # (n,)
        result: Tensor = v.add_(squared, alpha=1.0 - beta2).rsqrt().mul_(g)
        return result
    r = state.setdefault("exp_avg_sq_row", torch.zeros_like(g[..., 0])).mul_(beta2)  # (…, n)
    c = state.setdefault("exp_avg_sq_col", torch.zeros_like(g[..., 0, :])).mul_(beta2)  # (…, m)
    r.add_(squared.mean(dim=-1), alpha=1.0 - beta2)
    c.add_(squared.mean(dim=-2), alpha=1.0 - beta2)
    rows = (r / r.mean(dim=-1, keepdim=True)).rsqrt_().unsqueeze(-1)  # (…, n, 1)
    columns = c.unsqueeze(-2).rsqrt()  # (…, 1, m)
    result = (rows * columns).mul_(g)  # (…, n, m)
    return result
