"""A frozen layer and the LoRA beside it as one step of autograd.

Apart, they spend a sum the size of the layer's output on the way there, one the size of its input on the way back, and
keep copies of the factors for every operation. Here the small products add themselves to the layer's result, and what
is kept is the input, which others keep as well, and B's input of the rank's size.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input


class LinearLoRA(torch.autograd.Function):
    """layer(x) + s B A x; x (..., in), down A (r, in), up B (out, r). There is no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: nn.Linear, scale: float) -> Tensor:
        a, b = down.to(x.dtype), up.to(x.dtype)
        y = layer(x).contiguous()
        h = x.reshape(-1, x.shape[-1]) @ a.t()  # (n, r)
        y.view(-1, y.shape[-1]).addmm_(h, b.t(), alpha=scale)
        ctx.save_for_backward(x, h, a, b)
        ctx.layer, ctx.scale, ctx.dtypes = layer, scale, (down.dtype, up.dtype)
        result: Tensor = y
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, h, a, b = ctx.saved_tensors
        rows = gradient.reshape(-1, gradient.shape[-1])  # (n, out)
        dh = _scaled(rows @ b, ctx.scale)  # (n, r)
        d_up = _scaled(rows.t() @ h, ctx.scale).to(ctx.dtypes[1])
        d_down = (dh.t() @ x.reshape(-1, x.shape[-1])).to(ctx.dtypes[0])
        dx = None
        if ctx.needs_input_grad[0]:
            dx = back(ctx.layer, gradient, x).contiguous()
            dx.view(-1, dx.shape[-1]).addmm_(dh, a)
        return dx, d_down, d_up, None, None


class PointwiseLoRA(torch.autograd.Function):
    """The same for a 1 x 1 convolution: x (B, in, h, w), down (r, in, 1, 1), up (out, r, 1, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, down: Tensor, up: Tensor, layer: nn.Conv2d, scale: float) -> Tensor:
        a, b = down.flatten(1).to(x.dtype), up.flatten(1).to(x.dtype)
        y = layer(x).contiguous()
        h = a @ x.flatten(2)  # (B, r, hw)
        y.view(*y.shape[:2], -1).baddbmm_(b.expand(len(x), *b.shape), h, alpha=scale)
        ctx.save_for_backward(x, h, a, b)
        ctx.layer, ctx.scale, ctx.dtypes = layer, scale, (down.dtype, up.dtype)
        result: Tensor = y
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, h, a, b = ctx.saved_tensors
        columns = gradient.flatten(2)  # (B, out, hw)
        dh = _scaled(b.t() @ columns, ctx.scale)  # (B, r, hw)
        d_up = _scaled((columns @ h.transpose(1, 2)).sum(0), ctx.scale).to(ctx.dtypes[1])
        d_down = (dh @ x.flatten(2).transpose(1, 2)).sum(0).to(ctx.dtypes[0])
        dx = None
        if ctx.needs_input_grad[0]:
            dx = back(ctx.layer, gradient, x).contiguous()
            dx.view(*dx.shape[:2], -1).baddbmm_(a.t().expand(len(x), *a.t().shape), dh)
        return dx, d_down[:, :, None, None], d_up[:, :, None, None], None, None


def fits(x: Tensor, layer: nn.Module) -> bool:
    """Whether one of the two can stand for a layer: frozen, of the input's type, no autocast around; kernels 1 x 1. Not
    while compiling, since the compiler joins plain operations better.
    """
    if torch.compiler.is_compiling():
        return False
    weight = layer.weight
    if weight.requires_grad or weight.dtype != x.dtype or torch.is_autocast_enabled(x.device.type):
        return False
    if isinstance(layer, nn.Conv2d):
        plain = (layer.kernel_size, layer.stride, layer.padding, layer.groups) == ((1, 1), (1, 1), (0, 0), 1)
        return plain and x.ndim == 4
    return isinstance(layer, nn.Linear)


def run(x: Tensor, down: Tensor, up: Tensor, layer: nn.Module, scale: float) -> Tensor:
    """layer(x) + s B A x, for what `fits`."""
    function = PointwiseLoRA if isinstance(layer, nn.Conv2d) else LinearLoRA
    y: Tensor = function.apply(x, down, up, layer, scale)
    return y


def _scaled(made: Tensor, scale: float) -> Tensor:
    return made if scale == 1.0 else made.mul_(scale)


def back(layer: Any, gradient: Tensor, x: Tensor) -> Tensor:
    """The layer's input gradient; layers laid out for it (maquette.fast.packed) have a quicker way."""
    if getattr(layer, "layouts", None) is not None and layer.layouts.back is not None:
        made: Tensor = layer.back(gradient, x.shape)
        return made
    if isinstance(layer, nn.Conv2d):
        result: Tensor = conv2d_input(x.shape, layer.weight, gradient)
        return result
    plain: Tensor = gradient @ layer.weight
    return plain
