"""Frozen convolutions and linear layers whose weights oneDNN has laid out once, for the way there and the way back.

PyTorch keeps weights in their plain layout, because they may change, and oneDNN lays them out anew at every call: in
the deep blocks of a UNet, where weights are large and pictures small, that takes several times longer than the
convolution. The weights below a LoRA never change. The gradient of a convolution's input is a convolution with the
kernel turned by 180 degrees and its channels exchanged, so a second layout serves the way back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SMALLEST = 1 << 16  # weights below which laying out costs nothing worth saving


class _Layouts:
    """The two layouts of a layer's weight, made when first needed, for the sizes then seen; others work as well."""

    def __init__(self) -> None:
        self.there: Tensor | None = None
        self.back: Tensor | None = None


class PackedConv2d(nn.Conv2d):
    """A convolution with stride 1 and zero padding; everything else of nn.Conv2d holds. See `install`."""

    layouts: _Layouts

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        return _Convolution.apply(x, self) if _fits(x, self.weight, 1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            self.layouts.there = _lay_out(self.weight.detach(), self.padding, x)
        return _convolve(x, self.layouts.there, self.bias, self.padding)

    def back(self, gradient: Tensor) -> Tensor:
        padding = tuple(size - 1 - p for size, p in zip(self.kernel_size, self.padding, strict=True))  # type: ignore[operator]
        if self.layouts.back is None:
            turned = self.weight.detach().flip(2, 3).transpose(0, 1).contiguous()
            self.layouts.back = _lay_out(turned, padding, gradient)
        return _convolve(gradient, self.layouts.back, None, padding)


class PackedLinear(nn.Linear):
    """A linear layer; see `install`."""

    layouts: _Layouts

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return _Product.apply(x, self) if _fits(x, self.weight, -1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            self.layouts.there = _lay_out_rows(self.weight.detach(), x)
        return _multiply(x, self.layouts.there, self.bias)

    def back(self, gradient: Tensor) -> Tensor:
        if self.layouts.back is None:
            self.layouts.back = _lay_out_rows(self.weight.detach().t().contiguous(), gradient)
        return _multiply(gradient, self.layouts.back, None)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedConv2d) -> Tensor:
        ctx.layer = layer
        return layer.there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.layer.back(gradient) if ctx.needs_input_grad[0] else None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        return layer.there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.layer.back(gradient) if ctx.needs_input_grad[0] else None, None


def _fits(x: Tensor, weight: Tensor, axis: int) -> bool:
    """Whether the layouts can be used: same type and width, not inside autocast or a dry run, weight frozen."""
    same = x.dtype == weight.dtype and x.shape[axis] == weight.shape[1] and x.numel() > 0
    return same and type(x) is Tensor and not weight.requires_grad and not torch.is_autocast_enabled("cpu")


def _lay_out(weight: Tensor, padding: Any, x: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(weight, list(padding), [1, 1], [1, 1], 1, list(x.shape))
    return made


def _convolve(x: Tensor, layout: Tensor, bias: Tensor | None, padding: Any) -> Tensor:
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, layout, bias, list(padding), [1, 1], [1, 1], 1, "none", [], ""
    )
    return made


def _lay_out_rows(weight: Tensor, x: Tensor) -> Tensor:
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, x.numel() // x.shape[-1])
    return made


def _multiply(x: Tensor, layout: Tensor, bias: Tensor | None) -> Tensor:
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
    return made


def available() -> bool:
    """Whether this build of PyTorch has oneDNN and the four operators."""
    names = ("_reorder_convolution_weight", "_convolution_pointwise", "_reorder_linear_weight", "_linear_pointwise")
    return torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)


def install(network: nn.Module) -> int:
    """Pack every frozen layer on the CPU that can be; returns how many. The layers stay the same objects.

    Their weights remain readable and must not be changed in place while this holds; `remove` ends it.
    """
    if not available():
        return 0
    found = 0
    for module in network.modules():
        packed = _packed_kind(module)
        if packed is not None:
            module.__class__ = packed
            module.layouts = _Layouts()  # type: ignore[assignment]
            found += 1
    return found


def remove(network: nn.Module) -> None:
    """Make the layers what they were and free the layouts."""
    for module in network.modules():
        if isinstance(module, PackedConv2d | PackedLinear):
            module.__class__ = nn.Conv2d if isinstance(module, PackedConv2d) else nn.Linear  # type: ignore[assignment]
            del module.layouts


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
