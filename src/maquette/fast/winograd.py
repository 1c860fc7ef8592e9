"""3 x 3 convolutions in float32 by Winograd's minimal filtering F(4 x 4, 3 x 3) and F(2 x 2, 3 x 3) (arXiv 1509.09308):
1/4 and 4/9 of the multiplications.

A picture is cut into tiles of 6 x 6 that overlap by two; in the transformed domain each of a tile's 36 numbers meets a
matrix of its own, and the answer comes back as 4 x 4. Smaller tiles of 4 x 4, with answers of 2 x 2, have smaller
weights. Lavin and Gray interpolate at 0, 1, -1, 2, -2 and infinity; here 1/2 stands for -2, because then a kernel
turned by 180 degrees has the same transformed numbers in another order: one layout of the weights serves the way there
and the way back. Results are right to about 1e-5 of their size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import onednn

# Of each size of answer: the kernel's polynomial at 0, 1, -1, 2, 1/2 and infinity or 0, 1, -1 and infinity, scaled so
# that the other two matrices are simple; where each point's number stands for the kernel read backwards.
KERNELS = {
    4: [
        [1, 0, 0],
        [3 / 2, 3 / 2, 3 / 2],
        [1 / 9, -1 / 9, 1 / 9],
        [1 / 9, 2 / 9, 4 / 9],
        [4 / 9, 2 / 9, 1 / 9],
        [0, 0, 1],
    ],
    2: [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
}
TURNED = {4: (5, 1, 2, 4, 3, 0), 2: (3, 1, 2, 0)}
MOST_WEIGHT = 25  # times the numbers of the pictures that the large tiles' weights may be; beyond, memory buys little
LEAST_WIDTH = 150  # in x out / (in + out) below which cutting and joining takes longer than multiplying saves
FEWEST_TILES = 32  # small ones, of all pictures, below which reading the weights takes longer than multiplying saves


def size_for(weight: Tensor, padding: object, pictures: Sequence[int]) -> int:
    """The size of the tiles' answers that pays for a weight (out, in, kh, kw) and pictures (B, in, h, w); 0: none."""
    if weight.dtype != torch.float32 or weight.shape[2:] != (3, 3) or padding != (1, 1):
        return 0
    out, given = weight.shape[:2]
    if out * given < LEAST_WIDTH * (out + given):
        return 0
    batch, _, height, width = pictures
    numbers = sum(weight.shape[:2]) * height * width
    if 36 * weight.shape[0] * weight.shape[1] <= MOST_WEIGHT * numbers:
        return 4
    return 2 if batch * -(-height // 2) * -(-width // 2) >= FEWEST_TILES else 0


def transform(weight: Tensor, size: int) -> Tensor:
    """(out, in, 3, 3) -> ((size + 2)^2, out, in)."""
    kernel = torch.tensor(KERNELS[size], dtype=torch.float64)
    made = torch.einsum("ia, ocab, jb -> ijoc", kernel, weight.double(), kernel)
    return made.flatten(0, 1).float().contiguous()


def convolve(x: Tensor, weights: Tensor, bias: Tensor | None) -> Tensor:
    """(B, in, h, w) -> (B, out, h, w) with zeros around the picture; weights as `transform` makes them."""
    points = math.isqrt(len(weights))
    tiles = _cut(x, range(points))
    # matrix @ tile; oneDNN is a sixth quicker here than the library that PyTorch asks
    made = [onednn.multiply(matrix, tile.t(), None) for matrix, tile in zip(weights, tiles, strict=True)]
    return _join(made, x, bias)


def convolve_back(gradient: Tensor, weights: Tensor) -> Tensor:
    """The gradient (B, out, h, w) of the result -> that of the input (B, in, h, w)."""
    points = math.isqrt(len(weights))
    turned = TURNED[points - 2]
    made = torch.bmm(weights.mT, _cut(gradient, turned))
    return _join([made[points * i + j] for i in turned for j in turned], gradient, None)


def _cut(x: Tensor, order: Sequence[int]) -> Tensor:
    """Tiles of (B, C, h, w) in the transformed domain, (points x points, C, B x tiles).

    order: the place of each point's numbers, along both sides.
    """
    points = len(order)
    size = points - 2
    if x.shape[2] % size or x.shape[3] % size:
        x = nn.functional.pad(x, (0, -x.shape[3] % size, 0, -x.shape[2] % size))
    batch, channels, height, width = x.shape
    down, across = height // size, width // size
    columns = x.unflatten(3, (across, size)).permute(4, 1, 0, 2, 3)
    # The padded picture's columns 0, size, 2 size …, then 1, size + 1 …
    padded = x.new_zeros(size, channels, batch, height + size, across + 1)
    padded[1:, ..., 1 : height + 1, :across] = columns[:-1]
    padded[0, ..., 1 : height + 1, 1:] = columns[-1]
    rows = padded.unflatten(3, (down + 1, size))
    here, below = rows[:, :, :, :down], rows[:, :, :, 1:]
    halfway = x.new_empty(points, size, channels, batch, down, across + 1)
    _tile([*here.unbind(4), below[..., 0, :], below[..., 1, :]], [halfway[place] for place in order])
    made = x.new_empty(points, points, channels, batch, down, across)
    left, right = halfway[..., :across], halfway[..., 1:]
    _tile([*left.unbind(1), right[:, 0], right[:, 1]], [made[:, place] for place in order])
    return made.view(points * points, channels, -1)


def _join(matrices: Sequence[Tensor], like: Tensor, bias: Tensor | None) -> Tensor:
    """A matrix (out, B x tiles) for each of a tile's numbers -> (B, out, h, w), batch and sides those of `like`."""
    points = math.isqrt(len(matrices))
    size, batch, height, width = points - 2, len(like), *like.shape[2:]
    down, across = -(-height // size), -(-width // size)
    shape = (len(matrices[0]), batch, down, across)
    halfway = like.new_empty(size, points, *shape)
    for column in range(points):
        _answer([matrix.view(shape) for matrix in matrices[column::points]], halfway[:, column].unbind(0))
    made = like.new_empty(size, size, *shape)
    _answer(halfway.unbind(1), made.unbind(1))
    made = made.permute(3, 2, 4, 0, 5, 1).reshape(batch, shape[0], size * down, size * across)
    made = made[:, :, :height, :width].contiguous()
    return made if bias is None else made.add_(bias[:, None, None])


def _tile(numbers: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """The data's polynomial at the points, from as many numbers."""
    if len(numbers) == 4:
        d0, d1, d2, d3 = numbers
        torch.sub(d0, d2, out=out[0])
        torch.add(d1, d2, out=out[1])
        torch.sub(d2, d1, out=out[2])
        torch.sub(d3, d1, out=out[3])
        return
    d0, d1, d2, d3, d4, d5 = numbers
    e, f = d4 - d2, d3 - d1
    torch.sub(e, f, alpha=0.5, out=out[3])
    torch.sub(f, e, alpha=0.5, out=out[4])
    torch.add(d0 - d4, f, alpha=2.5, out=out[0])
    torch.sub(d5 - d1, e, alpha=2.5, out=out[5])
    torch.sub(torch.add(d2, d3, out=e), torch.add(d1, d4, out=f), alpha=2 / 3, out=out[1])
    torch.sub(torch.sub(d4, d1, out=e), torch.sub(d3, d2, out=f), alpha=3.5, out=out[2])


def _answer(numbers: Sequence[Tensor], out: Sequence[Tensor]) -> None:
    """Numbers of the result from those at the points."""
    if len(numbers) == 4:
        m0, m1, m2, m3 = numbers
        torch.add(m0, m1, out=out[0]).add_(m2)
        torch.sub(m1, m2, out=out[1]).add_(m3)
        return
    m0, m1, m2, m3, m4, m5 = numbers
    a, b = m1 + m2, m1 - m2
    torch.add(a, m3, alpha=4, out=out[2]).sub_(m4, alpha=2)
    torch.add(b, m3, alpha=2, out=out[1]).sub_(m4, alpha=4)
    torch.sub(a.add_(m0).add_(m3), m4, alpha=8, out=out[0])
    torch.sub(b.add_(m5).add_(m3, alpha=8), m4, out=out[3])
