"""Latents to pixels, with A1111's second try in 32 bits where an autoencoder's half precision gives NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from ..events import Event, Listener
from ..families.base import BaseModel
from .finite import require_finite_picture


@torch.no_grad()
def decoded(base: BaseModel, latents: Tensor, on_event: Listener, one_by_one: bool = False) -> Tensor:
    """(B, 4, h, w) -> (B, 3, H, W) in [0, 1]. Raises NotFiniteError where 32 bits do not help either.

    one_by_one: see `loop.SamplingOptions`. A VAE that needed 32 bits keeps them.
    """
    require_finite_picture(latents, base)
    pixels = _decoded(base, latents, one_by_one)
    if next(base.vae.parameters()).dtype != torch.float32 and not bool(torch.isfinite(pixels).all()):
        name = base.vae_source or base.source
        message = f"The VAE of {name} gave numbers that are not finite in half precision; it goes on in 32 bits."
        on_event(Event("warning", {"message": message}))
        base.vae.float()
        pixels = _decoded(base, latents, one_by_one)
    require_finite_picture(pixels, base)
    return pixels


def _decoded(base: BaseModel, latents: Tensor, one_by_one: bool) -> Tensor:
    if not one_by_one or base.device.type != "cpu":
        return base.decode(latents)
    return torch.cat([base.decode(latent[None].contiguous()) for latent in latents])
