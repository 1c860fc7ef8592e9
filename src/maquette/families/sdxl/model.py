"""Stable Diffusion XL as a BaseModel: two text encoders, a pooled vector, and size conditioning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.denoiser import Conditioning
from ..sd.model import StableDiffusion

LAYER = 2  # of both text encoders, counted from the end


class StableDiffusionXL(StableDiffusion):
    """UNet with size conditioning, VAE, CLIP-L and OpenCLIP bigG."""

    def context(self, x_t: Tensor, conditioning: Conditioning) -> tuple[Any, ...]:
        if conditioning.pooled is None:
            raise ValueError("SDXL needs the pooled text vector in its conditioning")
        dtype = next(self.unet.parameters()).dtype
        sizes = conditioning.time_ids if conditioning.time_ids is not None else self._full_picture(x_t)
        return self._text(conditioning), conditioning.pooled.to(dtype), sizes.to(dtype)

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        """Token windows for both encoders -> tokens (B, 77, D1 + D2) of the layer before the last, pooled (B, P).

        SDXL was trained on that layer, which A1111 counts as clip skip 2; like A1111 and sd-scripts this one obeys no
        other wish (`FamilySpec.skips` says so to the user).
        """
        first, second = (encoder(own) for encoder, own in zip(self.text_encoders, ids, strict=True))
        tokens = torch.cat([first.hidden_states[-LAYER], second.hidden_states[-LAYER]], dim=-1)
        return Conditioning(tokens, second.pooled)

    def _full_picture(self, x_t: Tensor) -> Tensor:
        """(B, 6) size numbers of a picture that was neither scaled nor cropped: height, width, 0, 0, height, width."""
        height, width = (side * self.spec.latent_factor for side in x_t.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]], device=x_t.device).repeat(len(x_t), 1)
