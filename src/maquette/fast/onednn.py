"""PyTorch's operators for weights that oneDNN has laid out once, which its own compiler uses for inference.

Only for types that `processor.packs`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Sides = Sequence[int]


def lay_out(weight: Tensor, padding: Sides, shape: Sides, stride: Sides = (1, 1)) -> Tensor:
    """A convolution's weight (out, in, kh, kw), for inputs of a shape (B, in, h, w)."""
    made: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        weight, list(padding), list(stride), [1, 1], 1, list(shape)
    )
    return made


def convolve(x: Tensor, layout: Tensor, bias: Tensor | None, padding: Sides, stride: Sides = (1, 1)) -> Tensor:
    """(B, in, h, w) -> (B, out, h', w')."""
    made: Tensor = torch.ops.mkldnn._convolution_pointwise(
        x, layout, bias, list(padding), list(stride), [1, 1], 1, "none", [], ""
    )
    return made


def lay_out_transposed(weight: Tensor, padding: Sides, over: Sides, shape: Sides, stride: Sides) -> Tensor:
    """The same weight for the transposed convolution, the gradient of a convolution with a stride.

    over: what the convolution left of its input's height and width; shape: the gradient's, (B, out, h', w').
    """
    made: Tensor = torch.ops.mkldnn._reorder_convolution_transpose_weight(
        weight, list(padding), list(over), list(stride), [1, 1], 1, list(shape)
    )
    return made


def convolve_transposed(x: Tensor, layout: Tensor, padding: Sides, over: Sides, stride: Sides) -> Tensor:
    """(B, out, h', w') -> (B, in, h, w)."""
    made: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
        x, layout, None, list(padding), list(over), list(stride), [1, 1], 1, "none", [], ""
    )
    return made


def lay_out_linear(weight: Tensor, rows: int) -> Tensor:
    """A weight (out, in), for so many rows of input."""
    made: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return made


def multiply(x: Tensor, layout: Tensor, bias: Tensor | None) -> Tensor:
    """x W^T + b of rows (..., in); plain weights (out, in) will do as well."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(x, layout, bias, "none", [], "")
    return made
