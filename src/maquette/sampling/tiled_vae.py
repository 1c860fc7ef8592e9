"""An autoencoder that works on overlapping parts of a picture, so that memory does not grow with its size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..families.base import BaseModel
from ..families.vae import Posterior

TILE, OVERLAP = 64, 16  # latent cells


@contextmanager
def tiled(base: BaseModel, tile: int = TILE, overlap: int = OVERLAP) -> Iterator[None]:
    """Within the block the base's VAE encodes and decodes in tiles of `tile` cells, of which neighbours share
    `overlap`, where they go over into each other. Pictures of one tile or less are as without.
    """
    vae: Any = base.vae
    factor = base.spec.latent_factor
    encode, decode = vae.encode, vae.decode

    def moments(x: Tensor) -> Tensor:
        return torch.cat(encode(x), dim=1)

    def in_tiles(x: Tensor) -> Posterior:
        both = by_tiles(moments, x, tile * factor, overlap * factor, factor, up=False)
        return Posterior(*both.chunk(2, dim=1))

    vae.encode = in_tiles
    vae.decode = lambda z: by_tiles(decode, z, tile, overlap, factor, up=True)
    try:
        yield
    finally:
        del vae.encode, vae.decode


def by_tiles(run: Callable[[Tensor], Tensor], x: Tensor, tile: int, overlap: int, factor: int, up: bool) -> Tensor:
    """run on tiles of x (B, C, h, w), put together; run makes its input `factor` times as large (up) or as small.

    Where tiles overlap, the share of each rises or falls in a straight line.
    """
    if x.shape[2] <= tile and x.shape[3] <= tile:
        return run(x)

    def out(cells: int) -> int:
        return cells * factor if up else cells // factor

    total: Tensor | None = None
    for top in _starts(x.shape[2], tile, overlap):
        for left in _starts(x.shape[3], tile, overlap):
            made = run(x[:, :, top : top + tile, left : left + tile])
            height, width = made.shape[2:]
            if total is None:
                total = made.new_zeros(*made.shape[:2], out(x.shape[2]), out(x.shape[3]))
                weights = made.new_zeros(1, 1, *total.shape[2:])
            rows = _ramp(height, out(overlap), top > 0, top + tile < x.shape[2])
            columns = _ramp(width, out(overlap), left > 0, left + tile < x.shape[3])
            share = (rows[:, None] * columns[None, :]).to(made)
            y, x_ = out(top), out(left)
            total[:, :, y : y + height, x_ : x_ + width] += made * share
            weights[:, :, y : y + height, x_ : x_ + width] += share
    assert total is not None
    return total / weights


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin: as few as cover the length, the last one at its end."""
    if length <= tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def _ramp(length: int, overlap: int, before: bool, after: bool) -> Tensor:
    """Shares of a tile along a side: 1, and falling towards a neighbour."""
    rising = (torch.arange(length, dtype=torch.float32) + 0.5) / overlap
    shares = torch.ones(length)
    if before:
        shares = torch.minimum(shares, rising)
    return torch.minimum(shares, rising.flip(0)) if after else shares
