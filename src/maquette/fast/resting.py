"""Layers of a network that draws: the weights that rest are laid out once for oneDNN, as `packed` does for training.

A LoRA gives a layer another tensor for a while: then the layer computes as PyTorch does, and its layout waits for the
weight to come back. Laid out are only weights that are large beside the pictures, where laying them out anew at every
call takes a good part of the call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import onednn, processor

SMALLEST = 1 << 20  # weights below which laying out costs nothing worth saving
MOST_ROWS = 1 << 10  # pixels or tokens, of all pictures, beyond which the product takes far longer than laying out


class _Layout:
    """Of the weight that a layer had when it was put in place, for the shape of the input seen last."""

    def __init__(self, home: Tensor) -> None:
        self.home = home  # held, so that no other tensor can lie where it lies
        self.shape: tuple[int, ...] = ()
        self.made: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _Layout:
        """A copied module shares the weight's numbers (`BaseModel.shared`), and lays them out for itself."""
        return _Layout(self.home)

    def serves(self, x: Tensor, weight: Tensor, axis: int) -> bool:
        """Whether it computes this: the weight at home, of the input's type and width, and no gradient wanted."""
        if torch.is_grad_enabled() or x.dtype != weight.dtype or type(x) is not Tensor or x.numel() == 0:
            return False
        rows = x.numel() // x.shape[axis]
        same = x.shape[axis] == self.home.shape[1] and weight.data_ptr() == self.home.data_ptr()
        return same and rows <= MOST_ROWS and not torch.is_autocast_enabled("cpu")


class RestingConv2d(nn.Conv2d):
    """Stands where a convolution stood and has its weight."""

    def __init__(self, layer: nn.Conv2d) -> None:
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
        super().__init__(*sizes, bias=layer.bias is not None, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = layer.weight, layer.bias
        self.layout = _Layout(layer.weight.detach())
        self.train(layer.training)

    def reset_parameters(self) -> None:
        """Nothing is filled in: the weights are another layer's."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        layout = self.layout
        if not layout.serves(x, self.weight, 1):
            return super().forward(x)
        if layout.made is None or layout.shape != x.shape:
            layout.made = onednn.lay_out(layout.home, self.padding, x.shape, self.stride)  # type: ignore[arg-type]
            layout.shape = tuple(x.shape)
        return onednn.convolve(x, layout.made, self.bias, self.padding, self.stride)  # type: ignore[arg-type]


class RestingLinear(nn.Linear):
    """Stands where a linear layer stood and has its weight."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.layout = _Layout(layer.weight.detach())
        self.train(layer.training)

    def reset_parameters(self) -> None:
        """Nothing is filled in: the weights are another layer's."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        layout = self.layout
        if not layout.serves(x, self.weight, -1):
            return super().forward(x)
        rows = x.numel() // x.shape[-1]
        if layout.made is None or layout.shape != (rows,):
            layout.made, layout.shape = onednn.lay_out_linear(layout.home, rows), (rows,)
        return onednn.multiply(x, layout.made, self.bias)


def install(network: nn.Module) -> int:
    """Put a resting layer in the place of every large layer on the CPU; returns how many. Each layout takes as much
    memory as its weight, from its first use on.
    """
    found = 0
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            made = _resting(layer)
            if made is not None:
                setattr(parent, name, made)
                found += 1
    return found


def _resting(layer: nn.Module) -> nn.Module | None:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor) or weight.requires_grad or weight.device.type != "cpu":
        return None
    if weight.numel() < SMALLEST or not processor.packs(weight.dtype):
        return None
    if type(layer) is nn.Linear:
        return RestingLinear(layer)
    if type(layer) is nn.Conv2d and layer.groups == 1 and layer.padding_mode == "zeros":
        return RestingConv2d(layer) if layer.dilation == (1, 1) and not isinstance(layer.padding, str) else None
    return None
