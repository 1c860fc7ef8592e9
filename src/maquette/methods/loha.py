"""LoHa (FedPara, arXiv 2108.06098; LyCORIS arXiv 2309.14859): the elementwise product of two low-rank matrices.

W' = W + s (A1 B1) * (A2 B2), rank up to r^2. Where a weight is large and the picture small, the change is computed as
what it is, a LoRA of rank r^2, without ever making a matrix of the weight's size. Elsewhere the changed weight is
formed once per step and used as an ordinary weight: three matrix products where others spend five.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..core.seeds import seeded
from .base import AdaptedLayers, LayerAdapter, MethodSpec, Slots, drop, run_layer, weight_of

WEIGHT_COST = (
    1000  # of one weight of the product, forward and backward, in multiplications; most of it is memory traffic
)


class Hadamard(torch.autograd.Function):
    """s (a1 @ b1) * (a2 @ b2); the backward pass forms the products again instead of keeping them."""

    @staticmethod
    def forward(ctx: Any, a1: Tensor, b1: Tensor, a2: Tensor, b2: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(a1, b1, a2, b2)
        ctx.scale = scale
        return (a1 @ b1).mul_(a2 @ b2).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a1, b1, a2, b2 = ctx.saved_tensors
        gradient = gradients[0] * ctx.scale
        first = (a2 @ b2).mul_(gradient)
        second = (a1 @ b1).mul_(gradient)
        return first @ b1.T, a1.T @ first, second @ b2.T, a2.T @ second, None


class LoHaLayer(LayerAdapter):
    """Parameters in LyCORIS's shapes: hada_w1_a (out, r), hada_w1_b (r, in·k·k), and the same for w2."""

    reads_weight = True

    def __init__(self, layer: nn.Module, spec: MethodSpec, generator: torch.Generator) -> None:
        super().__init__()
        weight = weight_of(layer)
        rank, self.alpha = spec.for_layer(layer)
        self.scale = self.alpha / (rank**0.5 if spec.rank_stabilized else rank)
        self.rank, self.rank_dropout, self.module_dropout = rank, spec.rank_dropout, spec.module_dropout
        rows, columns = weight.shape[0], weight[0].numel()
        self.hada_w1_a = nn.Parameter(torch.randn(rows, rank, generator=generator) * 0.1)
        self.hada_w1_b = nn.Parameter(torch.randn(rank, columns, generator=generator))
        self.hada_w2_a = nn.Parameter(torch.zeros(rows, rank))
        self.hada_w2_b = nn.Parameter(torch.randn(rank, columns, generator=generator))

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        if self.module_dropout and self.training and torch.rand(()) < self.module_dropout:
            result: Tensor = layer(x)
            return result
        first: Tensor = self.hada_w1_a
        if self.rank_dropout and self.training:
            first = drop(first[None], 2, 0.0, self.rank_dropout)[0]
        if self._low_rank_is_cheaper(x, layer):
            result = layer(x) + self._by_columns(x, layer, first)
            return result
        weight = (weight_of(layer) + self._product(first, layer)).to(x.dtype)
        return run_layer(layer, x, weight)

    def _low_rank_is_cheaper(self, x: Tensor, layer: nn.Module) -> bool:
        """Whether a LoRA of rank r^2 on the activations costs less than the whole weight and its gradient."""
        rows, columns = self.hada_w1_a.shape[0], self.hada_w1_b.shape[1]
        features = x.shape[1] if isinstance(layer, nn.Conv2d) else x.shape[-1]
        places = x.numel() // features
        whole = rows * columns * (places + WEIGHT_COST)
        return 3 * places * self.rank**2 * (rows + columns) < whole

    def _by_columns(self, x: Tensor, layer: nn.Module, first: Tensor) -> Tensor:
        """The change's output. A product of two sums is the sum of the products: (A1 B1) * (A2 B2) = U K with
        U (out, r^2) every product of a column of A1 and one of A2, and K (r^2, in·k·k) the same of the rows of B1, B2.
        """
        first, second = (first * self.scale).to(x.dtype), self.hada_w2_a.to(x.dtype)
        up = (first[:, :, None] * second[:, None, :]).flatten(1)
        b1, b2 = self.hada_w1_b.to(x.dtype), self.hada_w2_b.to(x.dtype)
        down = (b1[:, None, :] * b2[None, :, :]).flatten(0, 1)
        if isinstance(layer, nn.Conv2d):
            kernel = down.reshape(-1, *weight_of(layer).shape[1:])
            padding: Any = layer.padding
            inner = nn.functional.conv2d(x, kernel, None, layer.stride, padding, layer.dilation)
            return nn.functional.conv2d(inner, up[:, :, None, None])
        return nn.functional.linear(nn.functional.linear(x, down), up)

    def _product(self, first: Tensor, layer: nn.Module) -> Tensor:
        product: Tensor = Hadamard.apply(first, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b, self.scale)
        return product.reshape(weight_of(layer).shape)

    def factors(self) -> dict[str, Tensor]:
        return super().factors() | {"alpha": torch.tensor(self.scale * self.rank)}

    def up_parameters(self) -> set[str]:
        return {"hada_w1_a", "hada_w2_a"}


def attach(slots: Slots, spec: MethodSpec) -> AdaptedLayers:
    """LoHa on every slot."""
    return AdaptedLayers(
        slots, spec.family, lambda name, layer: LoHaLayer(layer, spec.for_module(name), seeded(spec.seed, name))
    )
