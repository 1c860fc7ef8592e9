"""PyTorch's optimizers without its compiler.

Their methods are decorated so that `torch.compile` leaves them out, and a decorator loads the compiler to tell it so:
1.5 seconds, as long as all the rest of PyTorch takes. Nobody compiles a step here, so the plain methods are called.
"""

from __future__ import annotations

from inspect import unwrap
from typing import Any

import torch


class Uncompiled(torch.optim.Optimizer):
    """To be named before the optimizer that it is mixed into, whose `step` is its own."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        unwrap(torch.optim.Optimizer.zero_grad)(self, set_to_none)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = unwrap(torch.optim.Optimizer.state_dict)(self)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        unwrap(torch.optim.Optimizer.load_state_dict)(self, state_dict)


class AdamW(Uncompiled, torch.optim.AdamW):
    """PyTorch's AdamW (arXiv 1711.05101, algorithm 2)."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        unwrap(torch.optim.AdamW.step)(self)


class SGD(Uncompiled, torch.optim.SGD):
    """PyTorch's gradient descent."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        unwrap(torch.optim.SGD.step)(self)
