"""A 3 x 3 convolution behind an enlargement to twice the height and width by repeating pixels.

Each of the four pixels that come from one sees it and three neighbours, most of them repeated: four kernels of 2 x 2 on
the small picture, sums of the large kernel's rows and columns, give the same numbers with 4/9 of the multiplications
(the sub-pixel convolution of arXiv 1609.05158, read backwards).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import onednn

# Rows of the 3 x 3 kernel that fall on the two small pixels an even or an odd row sees.
ROWS = ([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]], [[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
PLACES = [(row, column) for row in (0, 1) for column in (0, 1)]  # of four pixels that come from one


@dataclass(frozen=True)
class Kernels:
    """Four kernels laid out for each way, in the order of PLACES."""

    there: list[Tensor]
    back: list[Tensor]

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(tensor.numel() * tensor.itemsize for tensor in (*self.there, *self.back))


def kernels(weight: Tensor) -> list[Tensor]:
    """(out, in, 3, 3) -> four of (out, in, 2, 2)."""
    exact, rows = weight.double(), torch.tensor(ROWS, dtype=torch.float64)
    made = (torch.einsum("ur, oirc, vc -> oiuv", rows[row], exact, rows[column]) for row, column in PLACES)
    return [kernel.to(weight.dtype).contiguous() for kernel in made]


def lay_out(weight: Tensor, shape: torch.Size) -> Kernels:
    """For small pictures of a shape (B, in, h, w)."""
    made = kernels(weight)
    padded = (*shape[:2], shape[2] + 1, shape[3] + 1)
    there = [onednn.lay_out(kernel, (0, 0), padded) for kernel in made]
    result = (shape[0], len(weight), *shape[2:])
    turned = (kernel.flip(2, 3).transpose(0, 1).contiguous() for kernel in made)
    return Kernels(there, [onednn.lay_out(kernel, (1, 1), result) for kernel in turned])


def convolve(x: Tensor, laid_out: Kernels, bias: Tensor | None) -> Tensor:
    """(B, in, h, w) -> (B, out, 2h, 2w)."""
    batch, _, height, width = x.shape
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    made = None
    for (row, column), kernel in zip(PLACES, laid_out.there, strict=True):
        seen = padded[:, :, row : row + height + 1, column : column + width + 1].contiguous()
        part = onednn.convolve(seen, kernel, bias, (0, 0))
        if made is None:
            made = x.new_empty(batch, part.shape[1], height, 2, width, 2)
        made[:, :, :, row, :, column] = part
    assert made is not None
    return made.view(batch, -1, 2 * height, 2 * width)


def convolve_back(gradient: Tensor, laid_out: Kernels) -> Tensor:
    """The gradient (B, out, 2h, 2w) of the result -> that of the small picture (B, in, h, w)."""
    height, width = (side // 2 for side in gradient.shape[2:])
    made = None
    for (row, column), kernel in zip(PLACES, laid_out.back, strict=True):
        part = onednn.convolve(gradient[:, :, row::2, column::2].contiguous(), kernel, None, (1, 1))
        part = part[:, :, 1 - row : 1 - row + height, 1 - column : 1 - column + width]  # not what fell on the padding
        made = part.float() if made is None else made.add_(part)  # four times as many roundings in bf16 else
    assert made is not None
    return made.to(gradient.dtype, memory_format=torch.contiguous_format)
