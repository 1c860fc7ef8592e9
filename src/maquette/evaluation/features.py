"""The frozen base as an eye: what its UNet makes of a noisy picture tells what the picture shows.

"Emergent correspondence from image diffusion" (DIFT, arXiv 2306.03881): add noise once, run the UNet once, take the
features of a block in the middle. Which block, how much noise and which part of the picture suit a base is not written
down here: those are taken by which the photos best recognise each other among pictures of their class.

How like the photos a picture is, is measured by other numbers: mean and deviation of every channel over the plane (the
style statistics of AdaIN, arXiv 1703.06868) of one block; `references.py` compares them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from ..core.noise import NoiseSchedule
from ..data.wording import Wording
from ..families.base import BaseModel
from ..families.unet.attention_maps import word_maps
from .rows import batch_of

NOISE_LEVELS = (0.1, 0.25, 0.4)  # shares of the schedule's steps
KEPT = 3  # of the ways to look that recognise the photos best; their similarities are averaged
STATISTICS_LEVEL = 0.25  # of the noise at which statistics are taken
Way = tuple[str, int, str]  # block, timestep, and "centre", "attention" or "statistics" of the plane


@dataclass(frozen=True)
class Look:
    """What the eye makes of B pictures. features: for each way (B, D), centred unit vectors. statistics: (B, 2 D')."""

    features: tuple[Tensor, ...]
    statistics: Tensor


@dataclass(frozen=True)
class Eye:
    """Looks at latents and compares them with the photos'.

    means: for each way the mean feature of class pictures, (D,), which is taken away. photos, others: for each way the
    unit features of n photos and of m class pictures. recognition: of each way kept, in standard deviations. whole: the
    way of the statistics.
    """

    base: BaseModel
    wording: Wording
    schedule: NoiseSchedule
    seed: int
    clip_skip: int
    ways: tuple[Way, ...]
    whole: Way
    means: tuple[Tensor, ...] = ()
    photos: tuple[Tensor, ...] = ()
    others: tuple[Tensor, ...] = ()
    recognition: tuple[float, ...] = ()

    @torch.no_grad()
    def look(self, latents: Tensor) -> Look:
        """latents: (B, C, h, w), clean."""
        *raw, statistics = _raw(self, latents, (*self.ways, self.whole))
        unit = tuple(F.normalize(f - mean, dim=1) for f, mean in zip(raw, self.means, strict=True))
        return Look(unit, statistics)

    @torch.no_grad()
    def statistics(self, latents: Tensor) -> Tensor:
        """`look(latents).statistics` alone, by one pass."""
        return _raw(self, latents, (self.whole,))[0]

    def similarity(self, features: Sequence[Tensor]) -> Tensor:
        """(B, n) mean cosine to each photo, over the ways."""
        return torch.stack([f @ p.T for f, p in zip(features, self.photos, strict=True)]).mean(0)

    def similarity_to_others(self, features: Sequence[Tensor]) -> Tensor:
        """(B, m) to each class picture."""
        return torch.stack([f @ p.T for f, p in zip(features, self.others, strict=True)]).mean(0)


def make_eye(
    base: BaseModel,
    photos: Tensor,
    others: Tensor,
    wording: Wording,
    schedule: NoiseSchedule,
    seed: int = 0,
    clip_skip: int = 1,
) -> Eye:
    """photos: (n, C, h, w), others: (m, C, h, w) pictures of the class by the base, clean latents.

    A way's recognition: mean similarity of photos among themselves minus that of photos and others, over the root of
    their pooled variance (Cohen's d).
    """
    blocks = ["mid_block", *(f"up_blocks.{i}" for i in range(len(base.unet.up_blocks) - 1))]
    times = [int(share * len(schedule)) for share in NOISE_LEVELS]
    parts = ("statistics",) if wording.style else ("centre", "attention")
    every = tuple((block, t, part) for t in times for block in blocks for part in parts)
    whole = f"up_blocks.{len(base.unet.up_blocks) - 2}", int(STATISTICS_LEVEL * len(schedule)), "statistics"
    eye = Eye(base, wording, schedule, seed, clip_skip, every, whole)
    seen, class_seen = _raw(eye, photos, every), _raw(eye, others, every)
    found: list[tuple[float, int]] = []
    centred: list[tuple[Tensor, Tensor, Tensor]] = []
    for i, (a, b) in enumerate(zip(seen, class_seen, strict=True)):
        mean = b.mean(0)
        p, o = F.normalize(a - mean, dim=1), F.normalize(b - mean, dim=1)
        centred.append((mean, p, o))
        found.append((_recognition(p, o), i))
    kept = [i for _, i in sorted(found, key=lambda pair: (-pair[0], pair[1]))[:KEPT]]
    recognition = dict((i, value) for value, i in found)
    return replace(
        eye,
        ways=tuple(every[i] for i in kept),
        means=tuple(centred[i][0] for i in kept),
        photos=tuple(centred[i][1] for i in kept),
        others=tuple(centred[i][2] for i in kept),
        recognition=tuple(recognition[i] for i in kept),
    )


def _recognition(photos: Tensor, others: Tensor) -> float:
    if len(photos) < 2:
        return 0.0
    among = (photos @ photos.T)[~torch.eye(len(photos), dtype=torch.bool, device=photos.device)]
    across = (photos @ others.T).flatten()
    spread = ((among.var() + across.var()) / 2).sqrt().clamp(min=1e-6)
    return float((among.mean() - across.mean()) / spread)


def _raw(eye: Eye, latents: Tensor, ways: Sequence[Way]) -> list[Tensor]:
    """For each way (B, D): the block's features averaged over the middle half of the plane, or over the plane as the
    class word is attended to (DAAM, arXiv 2210.04885), or its channels' means and deviations (B, 2 D).
    """
    base, caption = eye.base, eye.wording.instead()
    conditioning = base.encode_text([caption], eye.clip_skip)
    random = torch.Generator().manual_seed(eye.seed)
    noise = torch.randn((1, *latents.shape[1:]), generator=random).to(latents)  # the same for every picture
    places = _places(base, caption, eye.wording.class_word)
    parts: list[list[Tensor]] = [[] for _ in ways]
    for x0 in latents.split(batch_of(latents)):
        for time in sorted({t for _, t, _ in ways}):
            t = torch.full((len(x0),), time, device=x0.device)
            features: dict[str, Tensor] = {}
            with word_maps(base.unet, places) as maps:
                base.predict(
                    eye.schedule.add_noise(x0, noise.expand_as(x0), t), t, conditioning[[0] * len(x0)], features
                )
            attention = _joined(maps, x0.shape[-2:])
            for i, (block, at, part) in enumerate(ways):
                if at == time:
                    parts[i].append(_pooled(features[block].float(), part, attention))
    return [torch.cat(part) for part in parts]


def _places(base: BaseModel, caption: str, class_word: str) -> list[int]:
    """Places of the class word's tokens in the first text encoder's window."""
    ids, word = list(base.tokenizers[0].encode(caption)), list(base.tokenizers[0].encode(class_word))
    starts = [i for i in range(len(ids)) if ids[i : i + len(word)] == word]
    first = starts[-1] if starts and word else 0
    return [1 + first + i for i in range(len(word) or 1)]


def _joined(maps: Sequence[Tensor], size: torch.Size) -> Tensor:
    """The layers' maps at one size, (B, 1, h, w), each to the mean 1. Pictures are as high to wide as `size`."""
    height, width = size
    total = None
    for flat in maps:
        h = round((flat.shape[1] * height / width) ** 0.5)
        plane = flat.unflatten(1, (h, -1))[:, None]
        plane = F.interpolate(plane, (height, width), mode="bilinear", align_corners=False)
        plane = plane / plane.mean((2, 3), keepdim=True).clamp(min=1e-8)
        total = plane if total is None else total + plane
    if total is None:
        raise ValueError("the network attends to no text")
    return total


def _pooled(features: Tensor, part: str, attention: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, D), of statistics (B, 2 D)."""
    height, width = features.shape[-2:]
    if part == "statistics":
        return torch.cat([features.mean((2, 3)), features.std((2, 3), correction=0)], 1)
    if part == "centre":
        top, left = height // 4, width // 4
        return features[:, :, top : height - top, left : width - left].mean((2, 3))
    weights = F.interpolate(attention, (height, width), mode="area")
    weights = weights - weights.amin((2, 3), keepdim=True)
    return (features * weights).sum((2, 3)) / weights.sum((2, 3)).clamp(min=1e-8)
