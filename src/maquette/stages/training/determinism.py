"""Operations that give the same bits each time, where CUDA would choose faster ones; a CPU's always do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS may add in another order each time


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Within the block, if `wanted`: deterministic kernels only; an operation that has none raises RuntimeError."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)
    os.environ[WORKSPACE] = before[2] or ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # else the fastest convolution of the day is taken
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # the memory-efficient one adds in any order
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if before[2] is None:
            del os.environ[WORKSPACE]
