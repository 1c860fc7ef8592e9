"""What this processor can do, asked in one place.

oneDNN lays out and multiplies bf16 and fp16 only where the processor has instructions for them and refuses elsewhere;
PyTorch's own loops, which then remain, take ten to a hundred times as long as float32.
"""

from __future__ import annotations

import torch

OPERATORS = (
    "_reorder_convolution_weight",
    "_convolution_pointwise",
    "_reorder_convolution_transpose_weight",
    "_convolution_transpose_pointwise",
    "_reorder_linear_weight",
    "_linear_pointwise",
)
QUESTIONS = {torch.bfloat16: "_is_mkldnn_bf16_supported", torch.float16: "_is_mkldnn_fp16_supported"}


def multiplies(dtype: torch.dtype) -> bool:
    """Whether it has instructions that oneDNN uses for numbers of a type; it has them for every type of full width."""
    if dtype not in QUESTIONS:
        return True
    name = QUESTIONS[dtype]
    return hasattr(torch.ops.mkldnn, name) and bool(getattr(torch.ops.mkldnn, name)())


def packs(dtype: torch.dtype) -> bool:
    """Whether weights of a type can be laid out for oneDNN (`fast.packed`): float32, and bf16 where it is multiplied.

    Builds of PyTorch without oneDNN, or without these operators for it, pack nothing.
    """
    known = torch.backends.mkldnn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS)
    return known and dtype in (torch.float32, torch.bfloat16) and multiplies(dtype)


def prefers_bf16() -> bool:
    """Whether bf16 is quicker than float32, not only possible: oneDNN asked, and AVX-512's bf16 instructions there."""
    return multiplies(torch.bfloat16) and torch.cpu._is_avx512_bf16_supported()


def computing(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """The type to compute in where one is asked for: float32 for what a CPU has no instructions for.

    The results are the same but for the rounding that the smaller type would have added.
    """
    return torch.float32 if device.type == "cpu" and not multiplies(dtype) else dtype


def notices(asked: str, dtype: torch.dtype) -> list[str]:
    """What to tell somebody who asked for bf16 or fp16, by name, and for whom float32 is computed in its place."""
    if asked not in ("bf16", "fp16") or dtype != torch.float32:
        return []
    return [
        f"This processor has no instructions for {asked}: everything is computed in fp32, which is many times quicker "
        "here and at least as exact."
    ]
