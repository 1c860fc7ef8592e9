"""Part of a picture drawn anew: what an inpainting model is shown, and how any other model keeps the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.denoiser import Conditioning
from ..families.base import BaseModel
from .finite import require_finite_picture
from .noise import ImageNoise, NoiseOptions
from .pictures.fitting import ResizeMode
from .pictures.repainting import Content, Repainting

if TYPE_CHECKING:
    from PIL.Image import Image


@torch.no_grad()
def extra_channels(base: BaseModel, picture: Tensor, mask: Tensor) -> Tensor:
    """Mask and masked picture as the UNet takes them behind the latent: (1 + 4, h, w).

    picture: (3, H, W) in [-1, 1]; what is masked becomes grey (0). mask: (1, H, W); the nearest pixel stands for each
    latent cell. The masked picture is the mean of its posterior, unit-scaled.
    """
    mean, _ = base.encode_images((picture * (mask < 0.5))[None])
    small = F.interpolate(mask[None], size=mean.shape[-2:], mode="nearest")[0]
    return torch.cat([small.to(mean), mean[0]])


@dataclass(frozen=True)
class Beginning:
    """What image to image begins from.

    latents: (1, 4, h, w), unit-scaled. mask: (1, 1, h, w), 1 where it is drawn anew, 0 where it stays; None: all of it.
    concat: (1, 5, h, w), what an inpainting model is shown besides; None for other models.
    """

    latents: Tensor
    mask: Tensor | None = None
    concat: Tensor | None = None
    content: Content = "original"

    def for_seeds(self, seeds: list[int], noise: NoiseOptions) -> Tensor:
        """(B, 4, h, w): the latents, where the mask is with noise or nothing instead ("Masked content")."""
        x = self.latents.expand(len(seeds), -1, -1, -1)
        if self.mask is None or self.content not in ("latent noise", "latent nothing"):
            return x
        if self.content == "latent nothing":
            return x * (1 - self.mask)
        white = ImageNoise(seeds, (x.shape[1], x.shape[2], x.shape[3]), x.device, NoiseOptions(noise.source)).first()
        return x * (1 - self.mask) + white * self.mask

    def keeping(self) -> Callable[[Tensor, float], Tensor] | None:
        """(x0, sigma) -> x0 with the beginning's own latents outside of the mask; None without mask."""
        if self.mask is None:
            return None
        mask, kept = self.mask, self.latents * (1 - self.mask)
        return lambda x0, sigma: x0 * mask + kept

    def with_mask(self, conditioning: Conditioning) -> Conditioning:
        """The conditioning with the channels of an inpainting model."""
        if self.concat is None:
            return conditioning
        return replace(conditioning, concat=self.concat.expand(len(conditioning), -1, -1, -1))


@torch.no_grad()
def begin(
    base: BaseModel,
    picture: Image,
    width: int,
    height: int,
    resize_mode: ResizeMode = "crop",
    repainted: Repainting | None = None,
    content: Content = "original",
) -> Beginning:
    """A picture (RGB; of another size only with the resize mode "latent") as what drawing begins from."""
    pixels = signed_pixels(picture if repainted is None else repainted.picture).to(base.device)
    latents, _ = base.encode_images(pixels)
    require_finite_picture(latents, base)
    cells = height // base.spec.latent_factor, width // base.spec.latent_factor
    if resize_mode == "latent" and latents.shape[-2:] != cells:
        latents = F.interpolate(latents, size=cells, mode="bilinear")
    if repainted is None:
        return Beginning(latents)
    mask = _cells(repainted.mask, *cells).to(latents)
    concat = None
    if base.input_channels == latents.shape[1] * 2 + 1:
        whole = _grey(repainted.mask).to(pixels)
        concat = extra_channels(base, pixels[0], whole.round())[None]
    return Beginning(latents, mask, concat, content)


def signed_pixels(picture: Image) -> Tensor:
    """A picture (RGB) -> (1, 3, H, W) in [-1, 1], float32."""
    data = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.reshape(1, picture.height, picture.width, 3).permute(0, 3, 1, 2).float() / 127.5 - 1


def _cells(mask: Image, height: int, width: int) -> Tensor:
    """(1, 1, h, w), 0 or 1: the mask on latent cells, each by what is around it, as A1111 rounds it."""
    return _grey(mask.resize((width, height))).round()[None]


def _grey(mask: Image) -> Tensor:
    """(1, H, W) in [0, 1]."""
    data = torch.frombuffer(bytearray(mask.tobytes()), dtype=torch.uint8)
    return data.reshape(1, mask.height, mask.width).float() / 255
