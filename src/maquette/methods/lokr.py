"""LoKr (LyCORIS, arXiv 2309.14859): the Kronecker product of a small matrix and a larger one of low rank.

W' = W + s kron(w1, w2), w2 whole or w2_a @ w2_b. With the input's features seen as a table (b, d), kron(w1, w2) x is
w1 X w2^T: the product itself is never formed, and costs about a `factor`-th of the layer.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..core.seeds import seeded
from .base import AdaptedLayers, LayerAdapter, MethodSpec, Slots, drop, uniform, weight_of


def split(size: int, factor: int) -> tuple[int, int]:
    """(m, n) with m n = size and m <= n: `factor` itself where it divides, else the largest m up to it that does; the
    largest of all for -1.
    """
    if factor > 0 and size % factor == 0:
        m = min(factor, size // factor)
    else:
        most = min(factor, math.isqrt(size)) if factor > 0 else math.isqrt(size)
        m = max(d for d in range(1, most + 1) if size % d == 0)
    return m, size // m


class LoKrLayer(LayerAdapter):
    """lokr_w1 (a, b); lokr_w2 (c, d[, k, k]) or lokr_w2_a (c, r) and lokr_w2_b (r, d·k·k); out = a c, in = b d."""

    def __init__(self, layer: nn.Module, spec: MethodSpec, generator: torch.Generator) -> None:
        super().__init__()
        weight = weight_of(layer)
        self.kernel = tuple(weight.shape[2:])
        area = weight[0, 0].numel() if self.kernel else 1
        (a, c), (b, d) = split(weight.shape[0], spec.factor), split(weight.shape[1], spec.factor)
        self.rank, self.alpha = spec.for_layer(layer)
        self.whole = self.rank >= max(c, d) / 2
        if self.whole:
            self.alpha = float(self.rank)  # readers scale by alpha / rank only where there is a rank
        self.scale = self.alpha / (self.rank**0.5 if spec.rank_stabilized and not self.whole else self.rank)
        self.sizes, self.module_dropout = (a, b, c, d), spec.module_dropout
        self.dropout, self.rank_dropout = spec.dropout, spec.rank_dropout
        self.lokr_w1 = nn.Parameter(uniform((a, b), b, generator))
        if self.whole:
            self.lokr_w2 = nn.Parameter(torch.zeros(c, d, *self.kernel))
        else:
            self.lokr_w2_a = nn.Parameter(uniform((c, self.rank), self.rank, generator))
            self.lokr_w2_b = nn.Parameter(torch.zeros(self.rank, d * area))

    def forward(self, x: Tensor, layer: nn.Module) -> Tensor:
        y: Tensor = layer(x)
        if self.module_dropout and self.training and torch.rand(()) < self.module_dropout:
            return y
        w1 = (self.lokr_w1 * self.scale).to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            return y + self._convolve(x, layer, w1)
        return y + self._multiply(x, w1)

    def _multiply(self, x: Tensor, w1: Tensor) -> Tensor:
        _, b, _, d = self.sizes
        table = x.unflatten(-1, (b, d))
        if self.whole:
            inner = F.linear(table, self.lokr_w2.to(x.dtype))  # (..., b, c)
            return (w1 @ self._drop(inner, -1)).flatten(-2)
        inner = w1 @ self._drop(F.linear(table, self.lokr_w2_b.to(x.dtype)), -1)  # (..., a, r)
        return F.linear(inner, self.lokr_w2_a.to(x.dtype)).flatten(-2)

    def _convolve(self, x: Tensor, layer: nn.Conv2d, w1: Tensor) -> Tensor:
        a, b, _, d = self.sizes
        kernel = self.lokr_w2 if self.whole else self.lokr_w2_b.reshape(-1, d, *self.kernel)
        rows = x.unflatten(1, (b, d)).flatten(0, 1)  # (B b, d, h, w)
        padding = cast("tuple[int, ...]", layer.padding)
        inner = F.conv2d(rows, kernel.to(x.dtype), None, layer.stride, padding, layer.dilation)
        inner = self._drop(inner.unflatten(0, (-1, b)), 2)  # (B, b, c or r, h, w)
        mixed = (w1 @ inner.flatten(2)).reshape(inner.shape[0] * a, *inner.shape[2:])  # (B a, c or r, h, w)
        if not self.whole:
            mixed = F.conv2d(mixed, self.lokr_w2_a.to(x.dtype)[:, :, None, None])
        result: Tensor = mixed.unflatten(0, (-1, a)).flatten(1, 2)  # (B, a c, h, w)
        return result

    def _drop(self, inner: Tensor, rank_axis: int) -> Tensor:
        """A whole second factor has no rank: only its single values drop."""
        return (
            drop(inner, rank_axis, self.dropout, 0.0 if self.whole else self.rank_dropout) if self.training else inner
        )

    def factors(self) -> dict[str, Tensor]:
        return super().factors() | {"alpha": torch.tensor(self.scale * self.rank)}

    def up_parameters(self) -> set[str]:
        return {"lokr_w2"} if self.whole else {"lokr_w2_b"}


def attach(slots: Slots, spec: MethodSpec) -> AdaptedLayers:
    """LoKr on every slot."""
    return AdaptedLayers(
        slots, spec.family, lambda name, layer: LoKrLayer(layer, spec.for_module(name), seeded(spec.seed, name))
    )
