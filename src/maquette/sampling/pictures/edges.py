"""Canny's edges (Canny 1986, A computational approach to edge detection), as OpenCV computes them."""

from __future__ import annotations

from typing import Any

import numpy as np

_TAN_22 = np.tan(np.pi / 8)


def canny(grey_or_rgb: Any, low: float, high: float) -> Any:
    """(H, W) or (H, W, 3) uint8 -> (H, W) uint8, 255 on an edge.

    Sobel gradients g of 3 x 3 with |g| = |gx| + |gy|, of the channel where it is largest; ridges of |g| above `high`,
    and those above `low` that hang together with them (8 neighbours).
    """
    low, high = min(low, high), max(low, high)
    pixels = np.atleast_3d(grey_or_rgb).astype(np.int32)
    gx, gy = _sobel(pixels, 1), _sobel(pixels, 0)
    size = np.abs(gx) + np.abs(gy)
    strongest = size.argmax(axis=2)[..., None]
    gx, gy, size = (np.take_along_axis(x, strongest, 2)[..., 0] for x in (gx, gy, size))
    thin = _ridges(gx, gy, size) & (size > low)
    return np.where(_connected(thin, thin & (size > high)), 255, 0).astype(np.uint8)


def _sobel(pixels: Any, axis: int) -> Any:
    """Derivative along an axis, smoothed (1, 2, 1) along the other; borders are repeated."""
    wide = np.pad(pixels, ((1, 1), (1, 1), (0, 0)), mode="edge")
    steep = np.roll(wide, -1, axis) - np.roll(wide, 1, axis)
    across = 1 - axis
    smooth = np.roll(steep, -1, across) + 2 * steep + np.roll(steep, 1, across)
    return smooth[1:-1, 1:-1]


def _ridges(gx: Any, gy: Any, size: Any) -> Any:
    """Where |g| is the largest along the gradient, of four directions (non-maximum suppression)."""
    wide = np.pad(size, 1)
    height, width = size.shape

    def beside(dy: int, dx: int) -> Any:
        return wide[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    flat = np.abs(gy) < np.abs(gx) * _TAN_22
    steep = np.abs(gy) > np.abs(gx) / _TAN_22
    falling = (gx ^ gy) >= 0  # the gradient points right and down, or left and up
    ridge = np.where(
        falling, (size > beside(-1, -1)) & (size > beside(1, 1)), (size > beside(-1, 1)) & (size > beside(1, -1))
    )
    ridge = np.where(steep, (size > beside(-1, 0)) & (size >= beside(1, 0)), ridge)
    return np.where(flat, (size > beside(0, -1)) & (size >= beside(0, 1)), ridge)


def _connected(all_of: Any, seeds: Any) -> Any:
    """Those places that hang together with a seed (hysteresis)."""
    found, stack = seeds.copy(), list(zip(*np.nonzero(seeds), strict=True))
    height, width = found.shape
    while stack:
        y, x = stack.pop()
        rows, columns = slice(max(y - 1, 0), min(y + 2, height)), slice(max(x - 1, 0), min(x + 2, width))
        new = all_of[rows, columns] & ~found[rows, columns]
        if new.any():
            ys, xs = np.nonzero(new)
            found[rows, columns] |= new
            stack += [(y_ + rows.start, x_ + columns.start) for y_, x_ in zip(ys, xs, strict=True)]
    return found
