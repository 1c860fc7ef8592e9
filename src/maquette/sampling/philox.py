"""Random numbers of NVIDIA's cards, on any processor: what torch.randn(device="cuda") gives, A1111's noise source "NV".

Philox-4x32-10 (Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3, 2011) and the Box-Muller transform.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by from round to round
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_UNIT = float(np.float32(2.3283064e-10))  # 2^-32 as CUDA writes it, which works in float32
_ANGLE = float(np.float32(2.3283064e-10 * 6.2831855))

Words = NDArray[np.uint64]


class Philox:
    """A generator: the nth call of `randn` continues as the card's nth call does."""

    def __init__(self, seed: int) -> None:
        self.key = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
        self.offset = 0

    def randn(self, shape: Sequence[int]) -> Tensor:
        """float32 of a shape of less than 2^32 elements. Element i is the first number of counter (offset, 0, i, 0)."""
        index = np.arange(math.prod(shape), dtype=np.uint64)
        zero = np.zeros_like(index)
        first, second = philox_4x32((zero + np.uint64(self.offset), zero, index, zero), self.key)[:2]
        self.offset += 1
        u, v = first * _UNIT + _UNIT / 2, second * _ANGLE + _ANGLE / 2
        normal = np.sqrt(-2.0 * np.log(u)) * np.sin(v)
        return torch.from_numpy(normal.astype(np.float32)).reshape(tuple(shape))


def philox_4x32(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """Four words of 32 random bits for each counter of four words; all arrays of one shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            product_1 >> np.uint64(32) ^ c1 ^ np.uint64(k0),
            product_1 & _LOW,
            product_0 >> np.uint64(32) ^ c3 ^ np.uint64(k1),
            product_0 & _LOW,
        )
        k0, k1 = k0 + _WEYL[0] & 0xFFFFFFFF, k1 + _WEYL[1] & 0xFFFFFFFF
    return c0, c1, c2, c3
