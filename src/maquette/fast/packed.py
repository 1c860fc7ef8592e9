"""Frozen convolutions and linear layers whose weights oneDNN has laid out once, for the way there and the way back.

PyTorch keeps weights in their plain layout, because they may change, and oneDNN lays them out anew at every call: in
the deep blocks of a UNet, where weights are large and pictures small, that takes several times longer than the
convolution. The weights below a LoRA never change. The gradient of a convolution's input is a convolution with the
kernel turned by 180 degrees and its channels exchanged, so a second layout serves the way back.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from . import winograd

SMALLEST = 1 << 16  # weights below which laying out costs nothing worth saving


class _Layouts:
    """Both layouts of a layer's weight, made when the layer first computes, for the sizes then seen; others work too,
    but may round otherwise than layouts made for them.
    """

    def __init__(self, readable: bool) -> None:
        self.readable = readable  # whether the plain weight stays; else only its shape and type remain
        self.there: Tensor | None = None
        self.back: Tensor | None = None
        self.tiled = False  # for `winograd`, one layout for both ways

    def release(self, layer: nn.Module) -> None:
        """Let the plain weight go where nobody reads it."""
        if not self.readable:
            shape = torch.empty_like(layer.weight, device="meta")  # type: ignore[arg-type]
            layer.weight = nn.Parameter(shape, requires_grad=False)


class PackedConv2d(nn.Conv2d):
    """A convolution with stride 1 and zero padding; everything else of nn.Conv2d holds. See `install`."""

    layouts: _Layouts

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        return _Frozen.apply(x, self) if _fits(x, self.weight, 1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            self._lay_out(x)
        assert self.layouts.there is not None
        if self.layouts.tiled:
            return winograd.convolve(x, self.layouts.there, self.bias)
        return _convolve(x, self.layouts.there, self.bias, self.padding)

    def _lay_out(self, x: Tensor) -> None:
        layouts, weight = self.layouts, self.weight.detach()
        size = winograd.size_for(weight, self.padding, x.shape)
        layouts.tiled = size > 0
        if layouts.tiled:
            layouts.there = layouts.back = winograd.transform(weight, size)
        else:
            sides = (n + 2 * p - k + 1 for n, p, k in zip(x.shape[2:], self.padding, self.kernel_size, strict=True))  # type: ignore[operator]
            result = torch.Size((len(x), len(weight), *sides))
            turned = weight.flip(2, 3).transpose(0, 1).contiguous()
            layouts.there = _lay_out(weight, self.padding, x.shape)
            layouts.back = _lay_out(turned, self.outer_padding, result)
        layouts.release(self)

    @property
    def outer_padding(self) -> tuple[int, ...]:
        """Of the gradient, so that its convolution is as large as the input was."""
        return tuple(k - 1 - p for k, p in zip(self.kernel_size, self.padding, strict=True))  # type: ignore[operator]

    def back(self, gradient: Tensor) -> Tensor:
        assert self.layouts.back is not None
        if self.layouts.tiled:
            return winograd.convolve_back(gradient, self.layouts.back)
        return _convolve(gradient, self.layouts.back, None, self.outer_padding)


class PackedLinear(nn.Linear):
    """A linear layer; see `install`."""

    layouts: _Layouts

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return _Frozen.apply(x, self) if _fits(x, self.weight, -1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            weight, rows = self.weight.detach(), x.numel() // x.shape[-1]
            self.layouts.there = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
            self.layouts.back = torch.ops.mkldnn._reorder_linear_weight(weight.t().contiguous(), rows)
            self.layouts.release(self)
        return _multiply(x, self.layouts.there, self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        assert self.layouts.back is not None
        return _multiply(gradient, self.layouts.back, None)


class _Frozen(torch.autograd.Function):
    """A packed layer's computation; only its input has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedConv2d | PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.layer.back(gradient) if ctx.needs_input_grad[0] else None, None


def _fits(x: Tensor, weight: Tensor, axis: int) -> bool:
    """Whether the layouts can be used: same type and width, not inside autocast or a dry run, weight frozen."""
    same = x.dtype == weight.dtype and x.shape[axis] == weight.shape[1] and x.numel() > 0
    return same and type(x) is Tensor and not weight.requires_grad and not torch.is_autocast_enabled("cpu")


def _lay_out(weight: Tensor, padding: Any, shape: torch.Size) -> Tensor:
    made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, list(padding), [1, 1], [1, 1], 1, list(shape))
    return made


def _convolve(x: Tensor, layout: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, layout, bias, list(padding), [1, 1], [1, 1], 1, "none", [], ""
    )
    return made


def _multiply(x: Tensor, layout: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
    return made


def available() -> bool:
    """Whether this build of PyTorch has oneDNN and the four operators."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def install(network: nn.Module, readable: Collection[nn.Module] = ()) -> int:
    """Pack every frozen layer on the CPU that can be; returns how many. The layers stay the same objects.

    From its first use on, the plain weight of a layer is gone unless it is in `readable`: the network is then good
    for passes forward and backward only, not for reading or changing weights.
    """
    if not available():
        return 0
    found = 0
    for module in network.modules():
        packed = _packed_kind(module)
        if packed is not None:
            module.__class__ = packed
            module.layouts = _Layouts(module in readable)  # type: ignore[assignment]
            found += 1
    return found


def size(network: nn.Module) -> int:
    """Bytes of all layouts that the first pass will have made or has made, plain weights not counted."""
    found = 0
    for layer in network.modules():
        if isinstance(layer, PackedConv2d | PackedLinear):
            made = layer.layouts.there if layer.layouts.tiled else None
            found += 2 * layer.weight.numel() * layer.weight.itemsize if made is None else made.numel() * made.itemsize
    return found


def _packed_kind(module: nn.Module) -> type[nn.Module] | None:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.requires_grad or weight.device.type != "cpu":
        return None
    if weight.dtype not in (torch.float32, torch.bfloat16) or weight.numel() < SMALLEST:
        return None
    if type(module) is nn.Linear:
        return PackedLinear
    if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
        plain = module.stride == (1, 1) and module.dilation == (1, 1) and not isinstance(module.padding, str)
        return PackedConv2d if plain else None
    return None
