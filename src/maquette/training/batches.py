"""Which of the photos each step sees, as latents in memory.

Everything random about a step follows from the seed and the step's number alone, so that a resumed run needs no random
state. Photos come in shuffled epochs, one endless row cut into steps of exactly `batch_size`: no photo is seen more
often than another, and each counts the same whatever its shape.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from ..core.seeds import seeded
from ..core.transfer import to_device_of
from ..data.dataset import Photo
from ..data.views import View
from .latents import EncodedPhoto


@dataclass(frozen=True)
class Batch:
    """Photos of one shape. x0: (B, C, h, w) float32, a fresh draw from each posterior. `photos`: their indices.

    captions: one draw for each. time_ids: (B, 6) SDXL's size conditioning: original height and width, crop top
    and left, height and width. mask: (B, 1, h, w) weights of the loss, or None. concat: (B, 5, h, w) what inpainting
    bases are shown besides, or None.
    """

    x0: Tensor
    photos: list[int]
    captions: list[str]
    time_ids: Tensor
    mask: Tensor | None
    concat: Tensor | None = None

    def __len__(self) -> int:
        return len(self.photos)

    def rows(self, rows: Sequence[int]) -> Batch:
        """Only these photos, in this order."""
        index = to_device_of(torch.tensor(rows), self.x0)
        return Batch(
            self.x0[index],
            [self.photos[i] for i in rows],
            [self.captions[i] for i in rows],
            self.time_ids[index],
            None if self.mask is None else self.mask[index],
            None if self.concat is None else self.concat[index],
        )


class LatentDataset:
    """All photos of one role."""

    def __init__(
        self,
        photos: Sequence[Photo],
        latents: Sequence[Sequence[EncodedPhoto]],
        seed: int,
        stream: str,
        caption_dropout: float = 0.0,
        extra: Sequence[Sequence[Tensor]] | None = None,
    ) -> None:
        """`latents[i]` are the variants of photo i: one for each place where it is cut, and those mirrored.

        extra: for each of them (M, 5, h, w), the inpainting channels of M masks, of which each step draws one.
        """
        self.extra = extra
        self.photos = list(photos)
        self.latents = latents
        self._seed, self._stream, self._dropout = seed, stream, caption_dropout
        self._row = [i for i, photo in enumerate(photos) for _ in range(photo.repeats)]
        self._epoch = lru_cache(maxsize=2)(self._shuffled)

    def _shuffled(self, epoch: int) -> list[int]:
        order = torch.randperm(len(self._row), generator=seeded(self._seed, self._stream, "epoch", epoch))
        return [self._row[i] for i in order]

    def indices(self, step: int, batch_size: int, share: float = 1.0) -> list[int]:
        """Photos of a step (counted from 0): batch_size times share, on average where that is no whole number."""
        places = range(*(math.floor(n * batch_size * share + 1e-9) for n in (step, step + 1)))
        return [self._epoch(place // len(self._row))[place % len(self._row)] for place in places]

    def batches(
        self, step: int, batch_size: int, parts: int, random: torch.Generator, share: float = 1.0
    ) -> list[Batch]:
        """A step's photos, grouped by shape and cut into at least `parts` pieces."""
        groups: dict[torch.Size, list[int]] = {}
        for index in self.indices(step, batch_size, share):
            groups.setdefault(self.latents[index][0].shape, []).append(index)
        largest = -(-batch_size // parts)
        pieces = [group[i : i + largest] for group in groups.values() for i in range(0, len(group), largest)]
        return [self._collate(piece, random) for piece in pieces]

    def _collate(self, indices: list[int], random: torch.Generator) -> Batch:
        chosen, time_ids, captions, extra = [], [], [], []
        for index in indices:
            variants = self.latents[index]
            which = _one_of(len(variants), random)
            chosen.append(variants[which])
            time_ids.append(time_ids_of(self.photos[index], variants[which].view))
            captions.append(self._caption(self.photos[index], random))
            if self.extra is not None:
                masks = self.extra[index][which]
                extra.append(masks[_one_of(len(masks), random)])
        mean, std = torch.stack([c.mean for c in chosen]), torch.stack([c.std for c in chosen])
        x0 = mean + std * to_device_of(torch.randn(mean.shape, generator=random), mean)
        mask = None
        if any(c.mask is not None for c in chosen):
            everywhere = torch.ones(1, *mean.shape[2:], device=mean.device)
            mask = torch.stack([everywhere if c.mask is None else c.mask for c in chosen])
        ids = to_device_of(torch.tensor(time_ids, dtype=torch.float32), mean)
        return Batch(x0, indices, captions, ids, mask, torch.stack(extra) if extra else None)

    def _caption(self, photo: Photo, random: torch.Generator) -> str:
        """The photo's caption, drawn anew where it varies, or nothing where dropout strikes."""
        caption = photo.caption_at(int(torch.randint(2**62, (), generator=random)) if photo.options.varies else 0)
        dropout = max(self._dropout, photo.options.dropout)
        return "" if dropout and float(torch.rand((), generator=random)) < dropout else caption


def _one_of(count: int, random: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=random)) if count > 1 else 0


def time_ids_of(photo: Photo, view: View | None = None) -> list[float]:
    """Return SDXL's time ids: original height and width, crop top and left (in pixels of the scaled photo), height and
    width of the bucket.
    """
    view = view or View.planned(photo)
    crop = view.crop
    (width, height), (bucket_width, bucket_height) = crop.original, crop.bucket
    left = crop.scaled[0] - bucket_width - crop.left if view.flip else crop.left
    return [height, width, crop.top, left, bucket_height, bucket_width]
