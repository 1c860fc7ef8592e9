"""Processors with and without instructions for bf16 and fp16, wherever the tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def pretend(monkeypatch: pytest.MonkeyPatch, half: bool) -> None:
    """Let PyTorch answer for a processor with (or without) the instructions; stand-ins compute where this one has none.

    Stand-ins keep weights as they are and multiply in float32, rounding once, as oneDNN does.
    """
    import torch

    from maquette.fast import onednn, processor

    lacking = half and not processor.multiplies(torch.bfloat16)
    for question in processor.QUESTIONS.values():
        monkeypatch.setattr(torch.ops.mkldnn, question, lambda: half)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: half)
    if lacking:
        for name, stand_in in stand_ins().items():
            monkeypatch.setattr(onednn, name, stand_in)


def stand_ins() -> dict[str, Callable[..., Any]]:
    """In place of maquette.fast.onednn's functions."""
    from torch import Tensor
    from torch.nn import functional as F

    def wide(*tensors: Tensor | None) -> list[Tensor | None]:
        return [None if tensor is None else tensor.float() for tensor in tensors]

    def kept(weight: Tensor, *sizes: Any) -> Tensor:
        return weight.clone()

    def convolve(x: Tensor, layout: Tensor, bias: Tensor | None, padding: Any, stride: Any = (1, 1)) -> Tensor:
        return F.conv2d(*wide(x, layout, bias), tuple(stride), tuple(padding)).to(x.dtype)  # type: ignore[arg-type]

    def convolve_transposed(x: Tensor, layout: Tensor, padding: Any, over: Any, stride: Any) -> Tensor:
        made = F.conv_transpose2d(*wide(x, layout), None, tuple(stride), tuple(padding), tuple(over))  # type: ignore[arg-type]
        return made.to(x.dtype)

    def multiply(x: Tensor, layout: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(*wide(x, layout, bias)).to(x.dtype)  # type: ignore[arg-type]

    return {
        "lay_out": kept, "lay_out_transposed": kept, "lay_out_linear": kept,
        "convolve": convolve, "convolve_transposed": convolve_transposed, "multiply": multiply,
    }  # fmt: skip
