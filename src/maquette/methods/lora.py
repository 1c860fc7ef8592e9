"""LoRA (arXiv 2106.09685), LoCon (the same on 3 x 3 convolutions, arXiv 2309.14859) and DoRA (arXiv 2402.09353).

W' = W + s B A with s = alpha / rank; B (out, r) starts at zero, A (r, in·k·k) random.
DoRA: W' = m (W + s B A) / ||W + s B A||; the norm counts as a constant in the backward pass (section 4.3 of the paper).
m and the norm are per input column, the only form that A1111 and ComfyUI both read rightly, or per output row, the form
of the paper, PEFT, diffusers and LyCORIS (docs/lora-files.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.seeds import seeded
from . import fused
from .base import AdaptedLayers, LayerAdapter, MethodSpec, Slots, drop, uniform, weight_of


class LoRALayer(LayerAdapter):
    """One adapted linear layer or convolution; parameters in Kohya's shapes (r, in[, k, k]) and (out, r[, 1, 1])."""

    def __init__(self, layer: nn.Module, spec: MethodSpec, generator: torch.Generator) -> None:
        super().__init__()
        weight = weight_of(layer)
        out_features, *inner = weight.shape
        self.rank, self.alpha = spec.for_layer(layer)
        self.scale = self.alpha / (self.rank**0.5 if spec.rank_stabilized else self.rank)
        self.dropout, self.rank_dropout, self.module_dropout = spec.dropout, spec.rank_dropout, spec.module_dropout
        self.drops = bool(spec.dropout or spec.rank_dropout or spec.module_dropout)
        tail = [1, 1] if weight.ndim == 4 else []
        fan_in = weight[0].numel()
        self.lora_down__weight = nn.Parameter(uniform((self.rank, *inner), fan_in, generator))
        self.lora_up__weight = nn.Parameter(torch.zeros(out_features, self.rank, *tail))

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        if not (self.training and self.drops) and fused.fits(x, layer):
            return fused.run(x, self.lora_down__weight, self.lora_up__weight, layer, self.scale)
        y: Tensor = layer(x)
        if self.module_dropout and self.training and torch.rand(()) < self.module_dropout:
            return y
        return y + self.low_rank(x, layer)

    def low_rank(self, x: Tensor, layer: nn.Module) -> Tensor:
        """s B A x, with the dropouts."""
        down = self.lora_down__weight.to(x.dtype)
        up = (self.lora_up__weight * self.scale).to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            inner = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return F.conv2d(self._drop(inner, 1), up)
        return F.linear(self._drop(F.linear(x, down), -1), up)

    def _drop(self, inner: Tensor, rank_axis: int) -> Tensor:
        return drop(inner, rank_axis, self.dropout, self.rank_dropout) if self.training else inner

    def product(self) -> Tensor:
        """s B A, float32, in the weight's shape."""
        down = self.lora_down__weight
        flat = self.lora_up__weight.flatten(1) @ down.flatten(1) * self.scale
        return flat.reshape(-1, *down.shape[1:])

    def factors(self) -> dict[str, Tensor]:
        # Every reader scales by alpha / rank, so a rank-stabilised scale is written as the alpha that gives it.
        return super().factors() | {"alpha": torch.tensor(self.scale * self.rank)}

    def up_parameters(self) -> set[str]:
        return {"lora_up__weight"}


class DoRALayer(LoRALayer):
    """LoRA of the direction, and a magnitude `dora_scale`: (1, in[, 1, 1]) per input or (out, 1[, 1, 1]) per output."""

    reads_weight = True

    def __init__(self, layer: nn.Module, spec: MethodSpec, generator: torch.Generator) -> None:
        super().__init__(layer, spec, generator)
        self.axis = spec.magnitude_axis
        self.dora_scale = nn.Parameter(self._norm(weight_of(layer).detach().float()))

    def _norm(self, weight: Tensor) -> Tensor:
        axes = [i for i in range(weight.ndim) if i != self.axis]
        result: Tensor = torch.linalg.vector_norm(weight, dim=axes, keepdim=True)
        return result

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        """Scaling the weight's columns is scaling the input's features; its rows, the output's but for the bias."""
        if self.module_dropout and self.training and torch.rand(()) < self.module_dropout:
            plain: Tensor = layer(x)
            return plain
        with torch.no_grad():
            norm = self._norm(weight_of(layer).float() + self.product())
        gain = (self.dora_scale / norm).flatten()
        if isinstance(layer, nn.Conv2d):
            gain = gain[:, None, None]
        if self.axis == 1:
            x = (x * gain).to(x.dtype)  # the float32 gain is close to 1: rounding it, not the product, would lose it
            result: Tensor = layer(x) + self.low_rank(x, layer)
            return result
        y = layer(x) + self.low_rank(x, layer)
        if layer.bias is None:
            return (y * gain).to(x.dtype)
        bias: Tensor = cast(Tensor, layer.bias).reshape(gain.shape)
        result = ((y - bias) * gain + bias).to(x.dtype)
        return result

    def load_factors(self, factors: Mapping[str, Tensor]) -> None:
        """A magnitude along the other axis is understood as well and kept."""
        scale, (out, inner) = factors["dora_scale"], (len(self.lora_up__weight), self.lora_down__weight.shape[1])
        ones = [1] * (self.lora_down__weight.ndim - 2)
        for axis, shape in enumerate([(out, 1, *ones), (1, inner, *ones)]):
            if scale.shape == shape and scale.shape != self.dora_scale.shape:
                self.axis, self.dora_scale = axis, nn.Parameter(torch.empty(shape))
        super().load_factors(factors)


def attach(slots: Slots, spec: MethodSpec) -> AdaptedLayers:
    """LoRA on every slot; with `spec.magnitude` DoRA. Kernels larger than 1 x 1 get the conv rank (LoCon)."""
    kind = DoRALayer if spec.magnitude else LoRALayer
    return AdaptedLayers(
        slots, spec.family, lambda name, layer: kind(layer, spec.for_module(name), seeded(spec.seed, name))
    )
