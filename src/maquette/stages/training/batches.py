"""The photos as latents in memory, and which of them each step sees.

Everything random about a step follows from the seed and the step's number alone, so that a resumed run needs no random
state. Photos come in shuffled epochs, one endless row cut into steps of exactly `batch_size`: no photo is seen more
often than another, and each counts the same whatever its shape.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ...data.cache import LatentCache, latents_of
from ...data.dataset import Photo, pixels
from ...errors import MaquetteError
from ...families.base import BaseModel


def generator(seed: int, *stream: object) -> torch.Generator:
    """A CPU generator that depends on the seed and the names or numbers of its stream only."""
    digest = hashlib.sha256("/".join(map(str, (seed, *stream))).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))


@dataclass(frozen=True)
class Latent:
    """A photo's posterior: mean and standard deviation, each (C, h, w)."""

    mean: Tensor
    std: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.mean.shape


@dataclass(frozen=True)
class Batch:
    """Photos of one shape. x0: (B, C, h, w) float32, a fresh draw from each posterior. `photos`: their indices."""

    x0: Tensor
    photos: list[int]

    def __len__(self) -> int:
        return len(self.photos)


class PhotoSet:
    """All photos of one role."""

    def __init__(self, photos: Sequence[Photo], latents: Sequence[Sequence[Latent]], seed: int, stream: str) -> None:
        """`latents[i]` are the variants of photo i: as it is, and mirrored where that is asked for."""
        self.photos = list(photos)
        self.latents = latents
        self._seed, self._stream = seed, stream
        self._row = [i for i, photo in enumerate(photos) for _ in range(photo.repeats)]
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        order = torch.randperm(len(self._row), generator=generator(self._seed, self._stream, "epoch", epoch))
        return [self._row[i] for i in order]

    def indices(self, step: int, batch_size: int) -> list[int]:
        """Photos of a step (counted from 0)."""
        places = range(step * batch_size, (step + 1) * batch_size)
        return [self._epoch(place // len(self._row))[place % len(self._row)] for place in places]

    def batches(self, step: int, batch_size: int, parts: int, random: torch.Generator) -> list[Batch]:
        """A step's photos, grouped by shape and cut into at least `parts` pieces."""
        groups: dict[torch.Size, list[int]] = {}
        for index in self.indices(step, batch_size):
            groups.setdefault(self.latents[index][0].shape, []).append(index)
        largest = -(-batch_size // parts)
        pieces = [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]
        return [self._draw(piece, random) for piece in pieces]

    def _draw(self, indices: list[int], random: torch.Generator) -> Batch:
        chosen = []
        for index in indices:
            variants = self.latents[index]
            which = int(torch.randint(len(variants), (), generator=random)) if len(variants) > 1 else 0
            chosen.append(variants[which])
        mean, std = torch.stack([c.mean for c in chosen]), torch.stack([c.std for c in chosen])
        return Batch(mean + std * torch.randn(mean.shape, generator=random).to(mean), indices)


@torch.no_grad()
def encode_photos(
    base: BaseModel,
    photos: Sequence[Photo],
    flip: bool,
    cache: LatentCache | None,
    on_progress: Callable[[int, int], None],
) -> list[list[Latent]]:
    """Latents of every photo (as it is and, with `flip`, mirrored) on the base's device, out of the cache where known.

    Raises MaquetteError naming the photo when its latent is not finite.
    """

    def encode(photo: Photo, mirrored: bool) -> tuple[Tensor, Tensor]:
        on_progress(1 + order[photo.path], len(photos))
        mean, std = base.encode_images(pixels(photo, flip=mirrored)[None])
        if not (mean.isfinite().all() and std.isfinite().all()):
            raise MaquetteError(f"{photo.path} cannot be encoded: the base's VAE gives no finite numbers.")
        return mean[0], std[0]

    order = {photo.path: i for i, photo in enumerate(photos)}
    encoder = f"{base.content_hash} {base.device.type} {next(base.vae.parameters()).dtype}"
    found = latents_of(photos, encode, encoder, cache, (False, True) if flip else (False,))
    return [[Latent(mean.to(base.device), std.to(base.device)) for mean, std in row] for row in found]
