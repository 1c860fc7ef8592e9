"""Attention as plain matrix products where they beat PyTorch's fused kernel, which they do in bf16 on CPUs.

Tables of scores up to some thousand tokens are made whole; larger ones in blocks of rows that fit the caches. The
fused kernel works its tables out again on the way back; here they are kept while a layer's are not too large.
`python -m benchmarks.step_parts` has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import processor

LARGEST_TABLE = 1024 * 1024  # tokens x tokens of one head that are made whole
BLOCK = 2 * 1024 * 1024  # entries of a block
LARGEST_KEPT = 1 << 28  # bytes of one layer's tables; 8 heads of 4096 x 4096 in bf16, one picture of 512 x 512 pixels


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d)) v of (B, heads, tokens, d) tensors, by the fastest of three ways."""
    if q.dtype != torch.bfloat16 or q.device.type != "cpu":
        return nn.functional.scaled_dot_product_attention(q, k, v)
    q, table = q * q.shape[-1] ** -0.5, q.shape[-2] * k.shape[-2]
    if table <= LARGEST_TABLE:
        return _table(q, k) @ v
    heads = q.shape[0] * q.shape[1]
    keep = torch.is_grad_enabled() and heads * table * q.itemsize <= LARGEST_KEPT
    made: Tensor = _InBlocks.apply(*(x.flatten(0, 1).contiguous() for x in (q, k, v)), keep)
    result: Tensor = made.unflatten(0, q.shape[:2])
    return result


class _InBlocks(torch.autograd.Function):
    """softmax(q k^T) v of (heads, n or m, d) tensors, a block of rows of one head at a time.

    keep: whether the tables stay for the way back; else they are made anew there. There is no second derivative.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, keep: bool) -> Tensor:
        made, tables = torch.empty_like(q), []
        for head, rows in _blocks(q, k):
            table = _table(q[head, rows], k[head])
            torch.mm(table, v[head], out=made[head, rows])
            if keep:
                tables.append(table)
        ctx.save_for_backward(q, k, v, *tables)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *tables = ctx.saved_tensors
        gradient = gradient.contiguous()
        dq, dk, dv = torch.empty_like(q), *(torch.zeros(x.mT.shape, dtype=torch.float32) for x in (k, v))
        for number, (head, rows) in enumerate(_blocks(q, k)):
            table = tables[number] if tables else _table(q[head, rows], k[head])
            dv[head] += gradient[head, rows].mT @ table
            d_table = gradient[head, rows] @ v[head].mT
            scores = torch._softmax_backward_data(d_table, table, -1, table.dtype)
            torch.mm(scores, k[head], out=dq[head, rows])
            dk[head] += q[head, rows].mT @ scores
        return dq, dk.mT.to(k.dtype), dv.mT.to(v.dtype), None


def _blocks(q: Tensor, k: Tensor) -> list[tuple[int, slice]]:
    rows = max(1, BLOCK // k.shape[1])
    return [(head, slice(at, at + rows)) for head in range(len(q)) for at in range(0, q.shape[1], rows)]


def _table(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q k^T), (..., rows, m)."""
    return torch.softmax(q @ k.mT, dim=-1)


def install(network: nn.Module) -> int:
    """Use `attend` in every attention layer; returns how many. None on processors that do not multiply bf16, where the
    fused kernel is quicker.

    An attention layer is a module with `attend`, a function of q, k and v as here.
    """
    if not processor.multiplies(torch.bfloat16):
        return 0
    layers = [module for module in network.modules() if hasattr(module, "attend")]
    for layer in layers:
        setattr(layer, "attend", attend)  # noqa: B010 (a module's attribute of its own kind)
    return len(layers)
