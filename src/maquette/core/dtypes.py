"""Types of numbers by the names that options have for them."""

from __future__ import annotations

from functools import reduce

import torch

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = {"fp32": torch.float32, "fp64": torch.float64}


def computed(dtype: torch.dtype) -> torch.dtype:
    """The type for numbers that are made from those of a type: 16 bits where they had 8, too few to round again."""
    return torch.float16 if dtype.itemsize == 1 else dtype


def scaled(tensor: torch.Tensor, factor: float) -> torch.Tensor:
    """The tensor times a factor, in its own type, or in a wider one where that would lose more than its rounding."""
    if factor == 1:
        return tensor
    exact = tensor.to(torch.promote_types(computed(tensor.dtype), torch.float32)) * factor
    return narrowed(exact, tensor.dtype)


def narrowed(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Numbers that were made from those of a type, in that type where its range holds them; else as they are."""
    own = exact.to(computed(dtype))
    lost = torch.linalg.vector_norm(own.to(exact.dtype) - exact)  # NaN where it became infinite
    return own if lost <= torch.finfo(own.dtype).eps * torch.linalg.vector_norm(exact) else exact


def alike(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Tensors of one type that holds the numbers of all of them."""
    types = {tensor.dtype for tensor in tensors}
    if len(types) == 1:
        return tensors
    common = reduce(torch.promote_types, map(computed, types))
    return tuple(tensor.to(common) for tensor in tensors)
