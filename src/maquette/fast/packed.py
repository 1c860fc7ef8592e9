"""Frozen convolutions and linear layers whose weights oneDNN has laid out once, for the way there and the way back.

PyTorch keeps weights in their plain layout, because they may change, and oneDNN lays them out anew at every call: in
the deep blocks of a UNet, where weights are large and pictures small, that takes several times longer than the
convolution. The weights below a LoRA never change. The gradient of a convolution's input is a convolution with the
kernel turned by 180 degrees and its channels exchanged, so a second layout serves the way back. In float32 most
convolutions take Winograd's way instead (`winograd`), and those behind an enlargement take `upsampled`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn

from . import onednn, upsampled, winograd
from .stand_in import StandInConv2d, StandInLinear, children, fits, replaceable

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

    def size(self, weight: Tensor) -> int:
        """Bytes that they take, or will once they are made."""
        if self.there is None:
            return 2 * weight.numel() * weight.itemsize
        kept = {id(tensor): tensor for tensor in (self.there, self.back) if tensor is not None}
        return sum(tensor.numel() * tensor.itemsize for tensor in kept.values())


class PackedConv2d(StandInConv2d):
    """Stands where a frozen convolution with zero padding stood."""

    def __init__(self, layer: nn.Conv2d, readable: bool) -> None:
        """readable: see `install`."""
        super().__init__(layer)
        self.layouts = _Layouts(readable)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        return _Frozen.apply(x, self) if _fits(x, self.weight, 1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            self._lay_out(x.shape)
        assert self.layouts.there is not None
        if self.layouts.tiled:
            return winograd.convolve(x, self.layouts.there, self.bias)
        return onednn.convolve(x, self.layouts.there, self.bias, self.sides, self.stride)

    def _lay_out(self, shape: torch.Size) -> None:
        layouts, weight = self.layouts, self.weight.detach()
        size = winograd.size_for(weight, self.sides, shape) if self.stride == (1, 1) else 0
        layouts.tiled = size > 0
        if layouts.tiled:
            layouts.there = layouts.back = winograd.transform(weight, size)
        else:
            layouts.there = onednn.lay_out(weight, self.sides, shape, self.stride)
            layouts.back = self._lay_out_back(weight, shape)
        layouts.release(self)

    def _lay_out_back(self, weight: Tensor, shape: torch.Size) -> Tensor:
        lengths = zip(shape[2:], self.sides, self.kernel_size, self.stride, strict=True)
        result = (shape[0], len(weight), *((n + 2 * p - k) // s + 1 for n, p, k, s in lengths))
        if self.stride != (1, 1):
            return onednn.lay_out_transposed(weight, self.sides, self._over(shape), result, self.stride)
        turned = weight.flip(2, 3).transpose(0, 1).contiguous()
        return onednn.lay_out(turned, self.outer_padding, result)

    @property
    def sides(self) -> tuple[int, int]:
        """Zeros around the picture."""
        assert not isinstance(self.padding, str)
        return self.padding  # type: ignore[return-value]

    @property
    def outer_padding(self) -> tuple[int, ...]:
        """Of the gradient, so that its convolution is as large as the input was."""
        return tuple(k - 1 - p for k, p in zip(self.kernel_size, self.sides, strict=True))

    def _over(self, shape: torch.Size) -> tuple[int, ...]:
        """Rows and columns at the input's end that the strides do not reach."""
        lengths = zip(shape[2:], self.sides, self.kernel_size, self.stride, strict=True)
        return tuple((n + 2 * p - k) % s for n, p, k, s in lengths)

    def back(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The result's gradient -> that of the input, of this shape."""
        assert self.layouts.back is not None
        if self.layouts.tiled:
            return winograd.convolve_back(gradient, self.layouts.back)
        if self.stride != (1, 1):
            return onednn.convolve_transposed(gradient, self.layouts.back, self.sides, self._over(shape), self.stride)
        return onednn.convolve(gradient, self.layouts.back, None, self.outer_padding)


class PackedLinear(StandInLinear):
    """Stands where a frozen linear layer stood."""

    def __init__(self, layer: nn.Linear, readable: bool) -> None:
        """readable: see `install`."""
        super().__init__(layer)
        self.layouts = _Layouts(readable)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return _Frozen.apply(x, self) if _fits(x, self.weight, -1) else super().forward(x)

    def there(self, x: Tensor) -> Tensor:
        if self.layouts.there is None:
            weight, rows = self.weight.detach(), x.numel() // x.shape[-1]
            self.layouts.there = onednn.lay_out_linear(weight, rows)
            self.layouts.back = onednn.lay_out_linear(weight.t().contiguous(), rows)
            self.layouts.release(self)
        return onednn.multiply(x, self.layouts.there, self.bias)

    def back(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        """The result's gradient -> that of the input."""
        assert self.layouts.back is not None
        return onednn.multiply(gradient, self.layouts.back, None)


class PackedUpsample2D(nn.Module):
    """Stands where the UNet's Upsample2D stood: twice the height and width and a convolution, which is computed before
    the enlargement. The first picture decides whether that is so, as it decides about layouts.
    """

    def __init__(self, conv: PackedConv2d) -> None:
        super().__init__()
        self.conv = conv
        self.kernels: upsampled.Kernels | None = None
        self.small: bool | None = None
        self.train(conv.training)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w), or as high and wide as size."""
        if self.small is None:
            self.small = size is None and self._pays(x)
        if self.small and size is None and _fits(x, self.conv.weight, 1):
            made: Tensor = _Frozen.apply(x, self)
            return made
        large = nn.functional.interpolate(x, size, 2.0 if size is None else None, mode="nearest")
        if self.small:
            return nn.functional.conv2d(large, self.conv.weight, self.conv.bias, padding=self.conv.padding)
        result: Tensor = self.conv(large)
        return result

    def _pays(self, x: Tensor) -> bool:
        """Not where Winograd's large tiles save more."""
        doubled = (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
        return winograd.size_for(self.conv.weight, self.conv.sides, doubled) != 4

    def there(self, x: Tensor) -> Tensor:
        if self.kernels is None:
            self.kernels = upsampled.lay_out(self.conv.weight.detach(), x.shape)
        return upsampled.convolve(x, self.kernels, self.conv.bias)

    def back(self, gradient: Tensor, shape: torch.Size) -> Tensor:
        assert self.kernels is not None
        return upsampled.convolve_back(gradient, self.kernels)


class _Frozen(torch.autograd.Function):
    """A packed layer's computation; only its input has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedConv2d | PackedLinear | PackedUpsample2D) -> Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        return layer.there(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        return ctx.layer.back(gradient, ctx.shape) if ctx.needs_input_grad[0] else None, None


def _fits(x: Tensor, weight: Tensor, axis: int) -> bool:
    """Whether the layouts can be used."""
    return fits(x, weight, axis) and not weight.requires_grad


def install(network: nn.Module, readable: Collection[nn.Module] = ()) -> int:
    """Put a packed layer in the place of every frozen layer on the CPU that can be packed, also within adapters;
    returns how many. On processors without instructions for their type none is.

    From its first use on, the plain weight of a layer is gone unless it is in `readable`: the network is then good
    for passes forward and backward only, not for reading or changing weights. Build it anew to be rid of the layouts.
    """
    found = 0
    for parent, name, layer in children(network):
        packed = _packed(layer, layer in readable)
        if packed is not None:
            setattr(parent, name, packed)
            found += 1
    for parent, name, layer in children(network):
        if _is_upsample(layer):
            setattr(parent, name, PackedUpsample2D(layer.conv))  # type: ignore[arg-type]
    return found


def size(network: nn.Module) -> int:
    """Bytes of all layouts that the first pass will have made or has made, plain weights not counted."""
    found = 0
    for layer in network.modules():
        if isinstance(layer, PackedConv2d | PackedLinear):
            found += layer.layouts.size(layer.weight)
        elif isinstance(layer, PackedUpsample2D) and layer.kernels is not None:
            found += layer.kernels.size - layer.conv.layouts.size(layer.conv.weight)  # which are not made
    return found


def _packed(module: nn.Module, readable: bool) -> nn.Module | None:
    """What stands for a layer that can be packed."""
    layer = replaceable(module)
    if layer is None or layer.weight.numel() < SMALLEST:
        return None
    return PackedLinear(layer, readable) if isinstance(layer, nn.Linear) else PackedConv2d(layer, readable)


def _is_upsample(module: nn.Module) -> bool:
    """Whether it is the UNet's Upsample2D, its convolution packed and not under an adapter."""
    conv = getattr(module, "conv", None)
    if type(module).__name__ != "Upsample2D" or type(conv) is not PackedConv2d:
        return False
    return (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
