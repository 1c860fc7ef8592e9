"""Layers of a network that draws: the weights that rest are laid out once for oneDNN, as `packed` does for training.

A LoRA gives a layer another tensor for a while: then the layer computes as PyTorch does, and its layout waits for the
weight to come back. Laid out are only weights that are large beside the pictures, where laying them out anew at every
call takes a good part of the call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import memory, onednn
from .stand_in import StandInConv2d, StandInLinear, children, fits, replaceable

# Weights below which laying out costs less than the call by itself: of kernels, and of matrices by their type. In
# float32 the layout of a matrix brings a twentieth.
SMALLEST_KERNEL = 1 << 16
SMALLEST = {torch.bfloat16: 1 << 16}
MOST_PLACES = 512  # pixels of all pictures together beyond which a layout in float32 brings nothing
SHARE = 5  # of the machine's memory that layouts may take
USUAL_MEMORY = 1 << 33  # of a machine that does not tell


class _Layout:
    """Of the weight that a layer had when it was put in place, for the sizes seen last."""

    def __init__(self, home: Tensor) -> None:
        self.home = home  # held, so that no other tensor can lie where it lies
        self.made: Tensor | None = None
        self._sizes: tuple[int, ...] = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Layout:
        """A copied module has a weight of the same numbers (`BaseModel.shared`), and lays them out for itself."""
        return _Layout(self.home)

    def serves(self, x: Tensor, weight: Tensor, axis: int) -> bool:
        """Whether it computes this: the weight is at home, of the input's type and width, and no gradient is wanted."""
        if torch.is_grad_enabled() or not fits(x, weight, axis):
            return False
        if x.dtype == torch.float32 and x.numel() > MOST_PLACES * x.shape[axis]:
            return False
        return weight.data_ptr() == self.home.data_ptr()

    def lay_out(self, sizes: tuple[int, ...], make: Callable[[Tensor], Tensor]) -> Tensor:
        """What `make` makes of the weight, once for each of the input's sizes that follow each other."""
        if self.made is None or sizes != self._sizes:
            self.made, self._sizes = make(self.home), sizes
        return self.made


class RestingConv2d(StandInConv2d):
    """Stands where a convolution stood."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.layout = _Layout(layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, h, w) -> (B, out, h', w')."""
        layout = self.layout
        if not layout.serves(x, self.weight, 1):
            return super().forward(x)
        padding: Any = self.padding
        made = layout.lay_out(tuple(x.shape), lambda weight: onednn.lay_out(weight, padding, x.shape, self.stride))
        return onednn.convolve(x, made, self.bias, padding, self.stride)


class RestingLinear(StandInLinear):
    """Stands where a linear layer stood."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        self.layout = _Layout(layer.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        layout = self.layout
        if not layout.serves(x, self.weight, -1):
            return super().forward(x)
        rows = x.numel() // x.shape[-1]
        made = layout.lay_out((rows,), lambda weight: onednn.lay_out_linear(weight, rows))
        return onednn.multiply(x, made, self.bias)


def install(network: nn.Module) -> int:
    """Put a resting layer in the place of every large layer on the CPU, kernels first, as long as there is room.

    Returns how many. Each layout takes as much memory as its weight, from its first use on.
    """
    found = [(parent, name, made) for parent, name, layer in children(network) if (made := _resting(layer)) is not None]
    left, count = (memory.installed() or USUAL_MEMORY) // SHARE, 0
    for parent, name, made in sorted(found, key=lambda one: isinstance(one[2], nn.Linear)):
        left -= made.weight.numel() * made.weight.itemsize
        if left < 0:
            break
        setattr(parent, name, made)
        count += 1
    return count


def _is_kernel(weight: Tensor) -> bool:
    return weight.ndim == 4 and weight.shape[2:] != (1, 1)


def _resting(module: nn.Module) -> RestingConv2d | RestingLinear | None:
    layer = replaceable(module)
    if layer is None:
        return None
    smallest = SMALLEST_KERNEL if _is_kernel(layer.weight) else SMALLEST.get(layer.weight.dtype, math.inf)
    if layer.weight.numel() < smallest:
        return None
    return RestingLinear(layer) if isinstance(layer, nn.Linear) else RestingConv2d(layer)
