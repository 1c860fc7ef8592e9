"""Stable Diffusion 1 and 2 (any width) as a BaseModel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.denoiser import Conditioning
from ..base import BaseModel
from . import latent
from .text import encode_windows


class StableDiffusion(BaseModel):
    """One UNet, one VAE, one CLIP text encoder."""

    _hash: str = ""

    def hash_when_asked(self, compute: Callable[[], str]) -> None:
        """Put off the content hash until it is needed: hashing 2 GB takes longer than loading them."""
        self._compute_hash = compute

    @property
    def content_hash(self) -> str:
        """sha256 that identifies the weights."""
        if not self._hash:
            self._hash = self._compute_hash()
        return self._hash

    @content_hash.setter
    def content_hash(self, value: str) -> None:
        self._hash = value

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        x = x_t if conditioning.concat is None else torch.cat([x_t, conditioning.concat.to(x_t)], dim=1)
        dtype = next(self.unet.parameters()).dtype
        tokens = conditioning.tokens.to(dtype)
        output: Tensor = self.unet(x.to(dtype), t, encoder_hidden_states=tokens, return_dict=False)[0]
        return output

    def encode_text(self, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        return self.encode_ids(
            [torch.tensor([tokenizer.window(p) for p in prompts]) for tokenizer in self.tokenizers], clip_skip
        )

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        """Token windows, one (B, 77) int64 tensor per text encoder -> Conditioning with tokens (B, 77, D)."""
        tokens, _ = encode_windows(self.text_encoders[0], ids[0], clip_skip)
        return Conditioning(tokens)

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return latent.encode_images(self.vae, pixels, self.spec.latent_factor)

    def decode(self, latents: Tensor) -> Tensor:
        return latent.decode(self.vae, latents)
