"""Tensors made on the CPU, where a seed gives the same numbers whatever the graphics card, on their way to it."""

from __future__ import annotations

from torch import Tensor


def to_device_of(made: Tensor, like: Tensor, cast: bool = True) -> Tensor:
    """On the device and, if it has floating point numbers and `cast` is set, of the type of `like`, without waiting for
    the device: by way of page-locked memory where that is CUDA's.
    """
    if cast and made.is_floating_point():
        made = made.to(like.dtype)
    if like.device.type == "cuda":
        made = made.pin_memory()
    return made.to(like.device, non_blocking=True)
