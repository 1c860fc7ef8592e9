"""3 x 3 convolutions in float32 by Winograd's minimal filtering F(4 x 4, 3 x 3) (arXiv 1509.09308): a quarter of the
multiplications.

A picture is cut into tiles of 6 x 6 that overlap by two; in the transformed domain each of a tile's 36 numbers meets a
matrix of its own, and the answer comes back as 4 x 4. Lavin and Gray interpolate at 0, 1, -1, 2, -2 and infinity; here
1/2 stands for -2, because then a kernel turned by 180 degrees has the same transformed numbers in another order: one
layout of the weights serves the way there and the way back. Results are right to about 1e-5 of their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

# Rows: the kernel's polynomial at 0, 1, -1, 2, 1/2 and infinity, scaled so that the other two matrices are simple.
KERNEL = [
    [1, 0, 0],
    [3 / 2, 3 / 2, 3 / 2],
    [1 / 9, -1 / 9, 1 / 9],
    [1 / 9, 2 / 9, 4 / 9],
    [4 / 9, 2 / 9, 1 / 9],
    [0, 0, 1],
]
TURNED = (5, 1, 2, 4, 3, 0)  # where each point's number stands for the kernel read backwards
MOST_WEIGHT = 25  # times the numbers of the pictures that the transformed weights may be; beyond, memory buys little


def suits(weight: Tensor, padding: object, picture: Sequence[int]) -> bool:
    """Whether it pays for a weight (out, in, kh, kw) and pictures (B, in, h, w): many tiles for few weights."""
    if weight.dtype != torch.float32 or weight.shape[2:] != (3, 3) or padding != (1, 1):
        return False
    numbers = sum(weight.shape[:2]) * picture[2] * picture[3]
    return 36 * weight.shape[0] * weight.shape[1] <= MOST_WEIGHT * numbers


def transform(weight: Tensor) -> Tensor:
    """(out, in, 3, 3) -> (36, out, in)."""
    kernel = torch.tensor(KERNEL, dtype=torch.float64)
    made = torch.einsum("ia, ocab, jb -> ijoc", kernel, weight.double(), kernel)
    return made.flatten(0, 1).float().contiguous()


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """(B, in, h, w) -> (B, out, h, w) with zeros around the picture; weights as `transform` makes them."""
    tiles = _cut(x)
    made = [_multiply(matrix, tile) for matrix, tile in zip(weights, tiles, strict=True)]
    return _join(made, x, bias)


def convolve_back(gradient: Tensor, weights: Tensor) -> Tensor:
    """The gradient (B, out, h, w) of the result -> that of the input (B, in, h, w)."""
    tiles = _cut(gradient)
    order = [6 * i + j for i in TURNED for j in TURNED]
    made = [torch.mm(weights[n].t(), tile) for n, tile in zip(order, tiles, strict=True)]
    return _join(made, gradient, None)


def _multiply(matrix: Tensor, tile: Tensor) -> Tensor:
    """matrix @ tile by oneDNN, which is a sixth quicker here than the library that PyTorch asks."""
    made: Tensor = torch.ops.mkldnn._linear_pointwise(matrix, tile.t(), None, "none", [], "")
    return made


def _cut(x: Tensor) -> Tensor:
    """Tiles of (B, C, h, w) in the transformed domain, (36, C, B x tiles)."""
    if x.shape[2] % 4 or x.shape[3] % 4:
        x = nn.functional.pad(x, (0, -x.shape[3] % 4, 0, -x.shape[2] % 4))
    batch, channels, height, width = x.shape
    down, across = height // 4, width // 4
    columns = x.unflatten(3, (across, 4)).permute(4, 1, 0, 2, 3)
    padded = x.new_zeros(4, channels, batch, height + 4, across + 1)  # the padded picture's columns 0, 4 …, then 1, 5 …
    padded[1:, ..., 1 : height + 1, :across] = columns[:3]
    padded[0, ..., 1 : height + 1, 1:] = columns[3]
    rows = padded.unflatten(3, (down + 1, 4))
    here, below = rows[:, :, :, :down], rows[:, :, :, 1:]
    halfway = x.new_empty(6, 4, channels, batch, down, across + 1)
    _tile([*here.unbind(4), below[..., 0, :], below[..., 1, :]], halfway.unbind(0))
    made = x.new_empty(6, 6, channels, batch, down, across)
    left, right = halfway[..., :across], halfway[..., 1:]
    _tile([*left.unbind(1), right[:, 0], right[:, 1]], made.unbind(1))
    return made.view(36, channels, -1)


def _join(matrices: Sequence[Tensor], like: Tensor, bias: Tensor | None) -> Tensor:
    """36 matrices (out, B x tiles) -> (B, out, h, w) with the batch, height and width of `like`."""
    batch, _, height, width = like.shape
    down, across = -(-height // 4), -(-width // 4)
    shape = (len(matrices[0]), batch, down, across)
    halfway = like.new_empty(4, 6, *shape)
    for column in range(6):
        _answer([matrix.view(shape) for matrix in matrices[column::6]], halfway[:, column].unbind(0))
    made = like.new_empty(4, 4, *shape)
    _answer(halfway.unbind(1), made.unbind(1))
    made = made.permute(3, 2, 4, 0, 5, 1).reshape(batch, shape[0], 4 * down, 4 * across)
    made = made[:, :, :height, :width].contiguous()
    return made if bias is None else made.add_(bias[:, None, None])


def _tile(numbers: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """The data's polynomial at the six points, from its six numbers."""
    d0, d1, d2, d3, d4, d5 = numbers
    e, f = d4 - d2, d3 - d1
    torch.sub(e, f, alpha=0.5, out=out[3])
    torch.sub(f, e, alpha=0.5, out=out[4])
    torch.add(d0 - d4, f, alpha=2.5, out=out[0])
    torch.sub(d5 - d1, e, alpha=2.5, out=out[5])
    torch.sub(torch.add(d2, d3, out=e), torch.add(d1, d4, out=f), alpha=2 / 3, out=out[1])
    torch.sub(torch.sub(d4, d1, out=e), torch.sub(d3, d2, out=f), alpha=3.5, out=out[2])


def _answer(numbers: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Four numbers of the result from those at the six points."""
    m0, m1, m2, m3, m4, m5 = numbers
    a, b = m1 + m2, m1 - m2
    torch.add(a, m3, alpha=4, out=out[2]).sub_(m4, alpha=2)
    torch.add(b, m3, alpha=2, out=out[1]).sub_(m4, alpha=4)
    torch.sub(a.add_(m0).add_(m3), m4, alpha=8, out=out[0])
    torch.sub(b.add_(m5).add_(m3, alpha=8), m4, out=out[3])
