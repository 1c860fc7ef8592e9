"""Stable Diffusion 1 and 2 (any width) as a BaseModel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ...core.channels import INPAINTING_CHANNELS
from ...core.denoiser import Conditioning
from ...errors import MaquetteError
from ..base import BaseModel, Control
from ..unet.transformer import KeptText


class StableDiffusion(BaseModel):
    """One UNet, one VAE, one CLIP text encoder."""

    _hash: str = ""

    @cached_property
    def _grey(self) -> dict[torch.Size, Tensor]:
        return {}

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

    def shared(self) -> BaseModel:
        """As BaseModel.shared; the hash is computed once for all."""
        other = super().shared()
        assert isinstance(other, StableDiffusion)
        other.__dict__.pop("_grey", None)  # each keeps its own
        if not self._hash:
            other.hash_when_asked(lambda: self.content_hash)
        return other

    @property
    def input_channels(self) -> int:
        return int(self.unet.config.in_channels)

    def predict(
        self,
        x_t: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        features: dict[str, Tensor] | None = None,
        control: Control | None = None,
    ) -> Tensor:
        context = self.context(x_t, conditioning)
        x = self._with_concat(x_t, conditioning).to(next(self.unet.parameters()).dtype)
        output: Tensor = self.unet(x, t, *context, control=control, features=features)
        return output

    def context(self, x_t: Tensor, conditioning: Conditioning) -> tuple[Any, ...]:
        return (self._text(conditioning),)

    def _text(self, conditioning: Conditioning) -> Tensor | KeptText:
        """The tokens in the UNet's type, with what its layers keep of them where they may."""
        tokens, memo = conditioning.tokens.to(next(self.unet.parameters()).dtype), conditioning.memo
        if memo is None:
            return tokens
        kept: KeptText = memo.setdefault("text", KeptText(tokens))
        return kept

    def _with_concat(self, x_t: Tensor, conditioning: Conditioning) -> Tensor:
        """The latent with the channels told; an inpainting model that is told none repaints the whole picture."""
        concat = conditioning.concat
        if concat is None and self.input_channels == INPAINTING_CHANNELS:
            concat = self._all_masked(x_t)
        return x_t if concat is None else torch.cat([x_t, concat.to(x_t)], dim=1)

    @torch.no_grad()
    def _all_masked(self, x_t: Tensor) -> Tensor:
        """(B, 5, h, w): a mask of ones and the latent of a grey picture, kept for the next call."""
        size = x_t.shape[-2:]
        if size not in self._grey:
            sides = [side * self.spec.latent_factor for side in size]
            self._grey[size] = self.encode_images(torch.zeros(1, 3, *sides, device=x_t.device))[0]
        grey = self._grey[size].to(x_t).expand(len(x_t), -1, -1, -1)
        return torch.cat([torch.ones_like(grey[:, :1]), grey], dim=1)

    def encode_text(self, prompts: Sequence[str], clip_skip: int = 1) -> Conditioning:
        return self.encode_ids(
            [torch.tensor([tokenizer.window(p) for p in prompts]) for tokenizer in self.tokenizers], clip_skip
        )

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        """Token windows, one (B, 77) int64 tensor per text encoder -> Conditioning with tokens (B, 77, D).

        clip_skip 1 is the last layer, 2 the one before (A1111's counting); the last norm is applied to the one chosen.
        Raises MaquetteError for a layer that the text encoder has not.
        """
        encoder: Any = self.text_encoders[0]
        layers = encoder.config.num_hidden_layers
        if not 1 <= clip_skip <= layers:
            raise MaquetteError(f"clip skip {clip_skip} is impossible: the text encoder has {layers} layers.")
        return Conditioning(encoder.final_layer_norm(encoder(ids[0]).hidden_states[-clip_skip]))

    def encode_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As BaseModel.encode_images. Raises MaquetteError where H or W is no multiple of the latent factor: the VAE
        would silently drop a border.
        """
        factor, (height, width) = self.spec.latent_factor, pixels.shape[-2:]
        if height % factor or width % factor:
            raise MaquetteError(
                f"an image of {width} x {height} pixels cannot be encoded: both sides must be multiples of {factor}."
            )
        vae: Any = self.vae
        weight = next(vae.parameters())
        posterior = vae.encode(pixels.to(weight.device, weight.dtype))
        mean, std = posterior.mean.float(), posterior.std.float()
        return (mean - (vae.config.shift_factor or 0.0)) * vae.config.scaling_factor, std * vae.config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        """As BaseModel.decode, float32. An infinite number stays visible as NaN, instead of becoming white or black."""
        vae: Any = self.vae
        weight = next(vae.parameters())
        latents = latents.to(weight.device) / vae.config.scaling_factor + (vae.config.shift_factor or 0.0)
        pixels = vae.decode(latents.to(weight.dtype)).float() / 2 + 0.5
        result: Tensor = pixels.clamp(0, 1).where(pixels.isfinite(), torch.nan)
        return result
