"""The LoRAs of several subjects side by side on one frozen network, each over its own rows of a batch.

The rows lie slot by slot, as many in each: x (N·b, …). The frozen layer computes all of them at once; the adapters are
products of stacks, h = s x Aᵀ with A (N, r, in) and s (N), and y += h Bᵀ with B (N, out, r). Nothing else joins the
rows of a batch, so that the gradient of the sum of the slots' losses is to each LoRA what it is alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from . import fused
from .base import AdaptedLayers, Slots
from .lora import LoRALayer


class Seats:
    """Which slots a pass is for, in the order of its rows; every SlotLayer of a network looks here."""

    def __init__(self) -> None:
        self.taken: tuple[int, ...] = ()


class SlotLayer(nn.Module):
    """Stands where a frozen layer stood; the LoRAs beside it belong to others."""

    def __init__(self, layer: nn.Module, seats: Seats) -> None:
        super().__init__()
        self.layer, self._seats = layer, seats
        self._adapters: dict[int, list[LoRALayer]] = {}  # in lists, so that they are no modules of this network

    def put(self, slot: int, adapter: LoRALayer) -> None:
        self._adapters[slot] = [adapter]

    def remove(self, slot: int) -> None:
        del self._adapters[slot]

    def forward(self, x: Tensor) -> Tensor:
        """(N·b, …), for the slots that are taken now; alone, a slot is computed as without this module."""
        adapters = [self._adapters[slot][0] for slot in self._seats.taken]
        if not adapters:
            plain: Tensor = self.layer(x)
            return plain
        if len(adapters) == 1 or not fused.fits(x, self.layer):
            parts = zip(adapters, x.chunk(len(adapters)), strict=True)
            return torch.cat([adapter(part, self.layer) for adapter, part in parts])
        factors = [a.lora_down__weight for a in adapters] + [a.lora_up__weight for a in adapters]
        function: Any = _Pointwise if isinstance(self.layer, nn.Conv2d) else _Linear
        made: Tensor = function.apply(x, self.layer, [a.scale for a in adapters], *factors)
        return made


class SlotLayers:
    """The layers of a network that carry the LoRAs of several subjects."""

    def __init__(self, layers: Slots) -> None:
        self.seats = Seats()
        self._layers: dict[str, SlotLayer] = {}
        for name, (parent, attribute) in layers.items():
            self._layers[name] = SlotLayer(getattr(parent, attribute), self.seats)
            setattr(parent, attribute, self._layers[name])

    def put(self, slot: int, attached: AdaptedLayers) -> None:
        """Give a slot the LoRAs that are attached to another copy of the network. Raises ValueError for others."""
        adapters = dict(attached.adapters())
        if adapters.keys() != self._layers.keys() or any(type(a) is not LoRALayer for a in adapters.values()):
            raise ValueError("only LoRAs of the same layers can share a network")
        for name, layer in self._layers.items():
            adapter = adapters[name]
            assert isinstance(adapter, LoRALayer)
            layer.put(slot, adapter)

    def remove(self, slot: int) -> None:
        """Empty a slot."""
        for layer in self._layers.values():
            layer.remove(slot)


def _stacked(factors: Sequence[Tensor], scales: Sequence[float], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A (N, r, in), B (N, out, r), s (N, 1, 1). Smaller ranks are filled up with zeros, whose gradients are cut off."""
    downs, ups = factors[: len(scales)], factors[len(scales) :]
    rank = max(len(down) for down in downs)
    a = torch.stack([F.pad(down.flatten(1), (0, 0, 0, rank - len(down))) for down in downs])
    b = torch.stack([F.pad(up.flatten(1), (0, rank - up.shape[1])) for up in ups])
    return a.to(like.dtype), b.to(like.dtype), torch.tensor(scales, dtype=like.dtype, device=like.device)[:, None, None]


def _apart(d_down: Tensor, d_up: Tensor, factors: Sequence[tuple[torch.Size, torch.dtype]]) -> list[Tensor]:
    """The stacks' gradients, (N, r, in) and (N, out, r), as those of the factors."""
    count = len(d_down)
    downs = [d[: shape[0]].reshape(shape).to(kind) for d, (shape, kind) in zip(d_down, factors[:count], strict=True)]
    ups = [d[:, : shape[1]].reshape(shape).to(kind) for d, (shape, kind) in zip(d_up, factors[count:], strict=True)]
    return downs + ups


class _Linear(torch.autograd.Function):
    """x (N·b, …, in); downs (r, in), ups (out, r). There is no second derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module, scales: Sequence[float], *factors: Tensor) -> Tensor:
        a, b, s = _stacked(factors, scales, x)
        y = layer(x).contiguous()
        h = (_rows(x, a) @ a.mT).mul_(s)  # (N, rows, r)
        _rows(y, a).baddbmm_(h, b.mT)
        ctx.save_for_backward(x, h, a, b, s)
        ctx.layer, ctx.factors = layer, [(factor.shape, factor.dtype) for factor in factors]
        result: Tensor = y
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, h, a, b, s = ctx.saved_tensors
        rows = _rows(gradient, a)  # (N, rows, out)
        dh = (rows @ b).mul_(s)  # (N, rows, r)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = fused.back(ctx.layer, gradient, x).contiguous()
            _rows(dx, a).baddbmm_(dh, a)
        return dx, None, None, *_apart(dh.mT @ _rows(x, a), rows.mT @ h, ctx.factors)


def _rows(x: Tensor, stack: Tensor) -> Tensor:
    """(N·b, …, d) -> (N, rows, d)."""
    return x.reshape(len(stack), -1, x.shape[-1])


class _Pointwise(torch.autograd.Function):
    """The same for a 1 x 1 convolution: x (N·b, in, h, w), downs (r, in, 1, 1), ups (out, r, 1, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module, scales: Sequence[float], *factors: Tensor) -> Tensor:
        a, b, s = _stacked(factors, scales, x)
        y = layer(x).contiguous()
        h = (a[:, None] @ _columns(x, a)).mul_(s[:, None])  # (N, b, r, hw)
        _columns(y, a).add_(b[:, None] @ h)
        ctx.save_for_backward(x, h, a, b, s)
        ctx.layer, ctx.factors = layer, [(factor.shape, factor.dtype) for factor in factors]
        result: Tensor = y
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, h, a, b, s = ctx.saved_tensors
        columns = _columns(gradient, a)  # (N, b, out, hw)
        dh = (b.mT[:, None] @ columns).mul_(s[:, None])  # (N, b, r, hw)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = fused.back(ctx.layer, gradient, x).contiguous()
            _columns(dx, a).add_(a.mT[:, None] @ dh)
        d_down, d_up = (dh @ _columns(x, a).mT).sum(1), (columns @ h.mT).sum(1)
        return dx, None, None, *_apart(d_down, d_up, ctx.factors)


def _columns(x: Tensor, stack: Tensor) -> Tensor:
    """(N·b, d, h, w) -> (N, b, d, hw)."""
    return x.reshape(len(stack), -1, x.shape[1], x.shape[2] * x.shape[3])
