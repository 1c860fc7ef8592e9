"""What the subject should look like where a prompt asks for it: the photos' subject before the backgrounds that the
base draws for the same words. Drawings are compared with these, since no photo shows the subject there, and to compare
with the photos themselves rewards their backgrounds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..families.base import BaseModel
from .cutouts import LEAST, backgrounds, set_before, subject_outlines
from .drawing import decoded
from .encoders import Encoder
from .example import Example

LEAST_DEVIATION = 0.05  # of a number, as a share of the mean one
Describe = Callable[[Tensor], Tensor]
"""(B, C, h, w) latents -> (B, D) numbers by which pictures are compared: `Eye.statistics`, or `by_encoder`."""


@dataclass(frozen=True)
class References:
    """unit: (A, r, D) for each of A asked attributes r references, as unit vectors of (statistics - middle) / scale.
    middle: half way between the class and the references; scale: the geometric mean of how pictures of the class differ
    and how references of one attribute do.
    row_of: the attribute of each of the plan's pictures -> its row of `unit`, -1 for pictures that are not compared.
    low: mean cosine of the base's class pictures with the references of their attribute; high: of references of other
    photos, at least half way from low to 1. pixels: (A, r, 3, H, W) in [-1, 1] the references themselves, on the CPU.
    """

    unit: Tensor
    row_of: tuple[int, ...]
    middle: Tensor
    scale: Tensor
    low: float
    high: float
    pixels: Tensor = field(repr=False)

    @property
    def compared(self) -> list[int]:
        """Which of the plan's pictures."""
        return [i for i, row in enumerate(self.row_of) if row >= 0]

    def similarity(self, statistics: Tensor) -> Tensor:
        """(B, D) of the plan's pictures, all of them -> (b,) mean cosine of those compared with their references."""
        rows = [self.row_of[i] for i in self.compared]
        unit = F.normalize((statistics[self.compared] - self.middle) / self.scale, dim=1)
        cosines: Tensor = torch.einsum("bd,brd->br", unit, self.unit[rows])
        return cosines.mean(1)


def by_encoder(base: BaseModel, encoder: Encoder) -> Describe:
    """Compare decoded pictures by CLIP's or DINO's features."""

    def describe(latents: Tensor) -> Tensor:
        return encoder.images(decoded(base, latents)).to(latents.device)

    return describe


def make_references(
    describe: Describe,
    base: BaseModel,
    photos: Sequence[Example],
    asked_of: Sequence[int],
    each: int,
    drawn: Tensor,
    statistics: Tensor,
    more: Tensor,
) -> References:
    """asked_of: the attribute of each of the plan's B pictures, -1 for those that are not compared. each: so many
    photos, in turn, before each background. drawn: (B, C, h, w) what the base drew of the class by the plan,
    statistics: (B, D) of these, more: (m, D) of other pictures of the class.
    """
    asked = list(dict.fromkeys(which for which in asked_of if which >= 0))
    rows = tuple(asked.index(which) if which >= 0 else -1 for which in asked_of) if asked else (0,) * len(asked_of)
    if asked:
        pixels = set_where_asked(base, photos, drawn[[asked_of.index(which) for which in asked]], each)
    else:
        pixels = torch.stack([photos[i].pixels.float() for i in turns(len(photos), min(each, len(photos)))])[None]
    each = pixels.shape[1]
    latents = [base.encode_images(own[None].to(base.device))[0].float() for own in pixels.flatten(0, 1)]
    found = describe(torch.cat(latents)).unflatten(0, (-1, each))  # (A, r, D)
    known = torch.cat([statistics, more])
    middle, scale = (known.mean(0) + found.mean((0, 1))) / 2, deviations(known)
    if each > 1:
        scale = (scale * deviations((found - found.mean(1, keepdim=True)).flatten(0, 1))).sqrt()
    unit = F.normalize((found - middle) / scale, dim=2)
    others = ~torch.eye(each, dtype=torch.bool, device=base.device)
    result = References(unit, rows, middle, scale, 0.0, 1.0, pixels)
    low = float(result.similarity(statistics).mean())
    high = float(torch.einsum("ard,asd->ars", unit, unit)[:, others].mean()) if each > 1 else -1.0
    return replace(result, low=low, high=max(high, (1 + low) / 2))


def set_where_asked(base: BaseModel, photos: Sequence[Example], drawn: Tensor, each: int) -> Tensor:
    """(A, r, 3, H, W) in [-1, 1]: the subject of `each` photos, in turn, before what is behind the class in each of the
    drawn latents (A, C, h, w). Where a photo has a mask, that is its outline.
    """
    photos = _with_subject(photos)
    picked = turns(len(photos), min(each, len(photos)) * len(drawn))
    own = {i: photos[i].pixels.float() for i in picked}
    outlines = {
        i: subject_outlines(pixels[None])[0] if (mask := photos[i].mask) is None else mask for i, pixels in own.items()
    }
    pictures = decoded(base, drawn) * 2 - 1
    behind = backgrounds(pictures, subject_outlines(pictures))
    subjects, cuts = (torch.stack([one[i] for i in picked]).unflatten(0, (len(drawn), -1)) for one in (own, outlines))
    return set_before(subjects, cuts, behind[:, None])


def _with_subject(photos: Sequence[Example]) -> Sequence[Example]:
    """Those whose mask, if they have one, leaves something to see: of a wide photo the subject may be cut off. Where
    none does, all of them, without masks.
    """
    seen = [photo for photo in photos if photo.mask is None or photo.mask.mean() >= LEAST]
    return seen or [replace(photo, mask=None) for photo in photos]


def deviations(samples: Tensor) -> Tensor:
    """(m, D) -> (D,), none much below the mean one."""
    deviation = samples.std(0)
    return deviation + LEAST_DEVIATION * deviation.mean() + 1e-6


def turns(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` things: each in turn, or, of more than that, some evenly spread."""
    return [i * count // wanted if count > wanted else i % count for i in range(wanted)]
