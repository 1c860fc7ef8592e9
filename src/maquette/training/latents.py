"""The photos of a run as latents: out of the cache, else encoded and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..data.cache import LatentCache
from ..data.dataset import Photo
from ..data.views import View, views
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..sampling.finite import damage


@dataclass(frozen=True)
class EncodedPhoto:
    """A photo's posterior: mean and standard deviation, each (C, h, w); mask (1, h, w) says where the loss counts.

    view: the crop that was encoded; None: the planned one.
    """

    mean: Tensor
    std: Tensor
    mask: Tensor | None = None
    view: View | None = None

    @property
    def shape(self) -> torch.Size:
        return self.mean.shape


@torch.no_grad()
def encode_photos(
    base: BaseModel,
    photos: Sequence[Photo],
    cache: LatentCache,
    on_progress: Callable[[str, int, int], None],
    flip: bool = False,
    random_crop: bool = False,
) -> list[list[EncodedPhoto]]:
    """Latents of every photo, one for each of its views, on the base's device: out of the cache, else encoded and kept.

    Each is encoded by itself, so that its numbers do not depend on which others were in the cache. on_progress: called
    with (what, number, all) for each photo that is encoded. flip: mirrored too. random_crop: cut at several places;
    those that show nothing of the photo's mask are left out.
    Raises MaquetteError naming the photo when its latent is not finite or its mask covers nothing.
    """
    encoder = f"{base.content_hash}{base.vae_hash} {base.device.type} {next(base.vae.parameters()).dtype}"
    factor, device = base.spec.latent_factor, base.device
    found: list[list[EncodedPhoto]] = []
    for number, photo in enumerate(photos, 1):
        row = []
        for view in views(photo, flip, random_crop):
            mask = view.mask(factor)
            if mask is not None and not mask.any():
                continue
            key, (width, height) = view.key(encoder), view.crop.bucket
            latent = cache.get(key, (base.spec.latent_channels, height // factor, width // factor))
            if latent is None:
                on_progress("encoding photos", number, len(photos))
                means, stds = base.encode_images(view.pixels()[None])
                latent = means[0], stds[0]
                _require_finite(latent, base, photo)
                cache.put(key, *latent)
            mean, std = (part.to(device) for part in latent)
            row.append(EncodedPhoto(mean, std, None if mask is None else mask.to(device), view))
        if not row:
            raise MaquetteError(f"The mask of {photo.name} covers nothing of what is trained; mend it or leave it out.")
        found.append(row)
    cache.trim()
    return found


def _require_finite(latent: tuple[Tensor, Tensor], base: BaseModel, photo: Photo) -> None:
    if not all(part.isfinite().all() for part in latent):
        why = damage(base) or (
            f"the VAE of {base.vae_source or base.source} gives numbers that are not finite; name one with --vae."
        )
        raise MaquetteError(f"{photo.path} cannot be encoded: {why}")
