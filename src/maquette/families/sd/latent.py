"""Pixels to latents and back through an AutoencoderKL, in unit-scaled latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ...errors import MaquetteError


def encode_images(vae: Any, pixels: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """(B, 3, H, W) in [-1, 1] -> posterior mean and standard deviation (B, 4, H/f, W/f), float32, unit-scaled.

    H and W must be multiples of `factor`; otherwise the encoder would silently drop a border.
    """
    height, width = pixels.shape[-2:]
    if height % factor or width % factor:
        raise MaquetteError(
            f"an image of {width} x {height} pixels cannot be encoded: both sides must be multiples of {factor}."
        )
    weight = next(vae.parameters())
    posterior = vae.encode(pixels.to(weight.device, weight.dtype))
    mean, std = posterior.mean.float(), posterior.std.float()
    scale = vae.config.scaling_factor
    return (mean - _shift(vae)) * scale, std * scale


def decode(vae: Any, latents: Tensor) -> Tensor:
    """(B, 4, h, w) unit-scaled latents -> (B, 3, H, W) pixels in [0, 1], float32, clamped.

    An infinite number stays visible as NaN, instead of becoming white or black.
    """
    weight = next(vae.parameters())
    latents = latents.to(weight.device) / vae.config.scaling_factor + _shift(vae)
    pixels = vae.decode(latents.to(weight.dtype))
    pixels = pixels.float() / 2 + 0.5
    result: Tensor = pixels.clamp(0, 1).where(pixels.isfinite(), torch.nan)
    return result


def _shift(vae: Any) -> float:
    return vae.config.shift_factor or 0.0
