"""Layers that stand where a frozen layer stood and have its weight: which can be replaced so, and by what."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import processor


class StandInConv2d(nn.Conv2d):
    """A convolution with another's weight; all of nn.Conv2d holds that a subclass does not change."""

    def __init__(self, layer: nn.Conv2d) -> None:
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding
        super().__init__(*sizes, bias=layer.bias is not None, device="meta")  # type: ignore[arg-type]
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)

    def reset_parameters(self) -> None:
        """Nothing is filled in: the weights are another layer's."""


class StandInLinear(nn.Linear):
    """A linear layer with another's weight; all of nn.Linear holds that a subclass does not change."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        self.train(layer.training)

    def reset_parameters(self) -> None:
        """Nothing is filled in: the weights are another layer's."""


def children(network: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """(parent, attribute, module) of every module within."""
    return [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]


def replaceable(module: nn.Module) -> nn.Conv2d | nn.Linear | None:
    """The module where it is a frozen linear layer, or convolution with zero padding, on a CPU that lays out weights of
    its type; else None.
    """
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.requires_grad or weight.device.type != "cpu":
        return None
    if not processor.packs(weight.dtype):
        return None
    if type(module) is nn.Linear:
        return module
    if type(module) is nn.Conv2d and module.groups == 1 and module.padding_mode == "zeros":
        return module if module.dilation == (1, 1) and not isinstance(module.padding, str) else None
    return None


def fits(x: Tensor, weight: Tensor, axis: int) -> bool:
    """Whether a layout of the weight serves an input: same type and width, not inside autocast or a dry run."""
    same = x.dtype == weight.dtype and x.shape[axis] == weight.shape[1] and x.numel() > 0
    return same and type(x) is Tensor and not torch.is_autocast_enabled("cpu")
