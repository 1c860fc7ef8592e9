"""Where noise comes from: each picture has a generator of its own, so that a batch equals its single pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import MaquetteError
from .philox import Philox
from .sources import NoiseSource

Generator = Callable[[tuple[int, ...]], Tensor]
"""shape -> float32 normal numbers, other ones at each call."""


@dataclass(frozen=True)
class NoiseOptions:
    """A1111's settings of the noise.

    source: "CPU" is PyTorch's on a CPU; "NV" that of NVIDIA's cards, computed on the CPU; "GPU" the card's own. ensd:
    added to the seed for all noise after the first. variation_seed, variation_strength: mix in another seed's noise;
    picture i has variation_seed + i. resize_from: (width, height) in latent cells of the picture whose noise is kept.
    """

    source: NoiseSource = "CPU"
    ensd: int = 0
    variation_seed: int = 0
    variation_strength: float = 0.0
    resize_from: tuple[int, int] | None = None


def generator(source: NoiseSource, seed: int, device: torch.device) -> Generator:
    """A source of normal numbers. Raises MaquetteError for "GPU" without a card."""
    if source == "NV":
        return Philox(seed).randn
    if source == "GPU" and device.type == "cpu":
        raise MaquetteError('Noise of the graphics card itself needs one; "NV" gives the same numbers on any machine.')
    own = torch.Generator(device if source == "GPU" else "cpu").manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=own, device=own.device)


class ImageNoise:
    """The noise of a batch of pictures, as A1111's ImageRNG draws it: `first` to begin with, `next` in the steps."""

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, int, int], device: torch.device, options: NoiseOptions
    ) -> None:
        """shape: (C, h, w) of a latent."""
        self.seeds, self.shape, self.device, self.options = seeds, shape, device, options
        self.generators = [self._generator(seed) for seed in seeds]

    def first(self) -> Tensor:
        """(B, C, h, w): what pure noise begins from."""
        drawn = [self._beginning(i) for i in range(len(self.seeds))]
        if self.options.ensd:
            self.generators = [self._generator(seed + self.options.ensd) for seed in self.seeds]
        return torch.stack(drawn).to(self.device)

    def next(self, sigma: float = 0.0, sigma_next: float = 0.0) -> Tensor:
        """(B, C, h, w): new white noise, whatever the levels."""
        return torch.stack([draw(self.shape) for draw in self.generators]).to(self.device)

    def randn(self, seed: int, shape: tuple[int, ...]) -> Tensor:
        """Noise of another seed, from the same source."""
        return self._generator(seed)(shape).cpu()

    def _generator(self, seed: int) -> Generator:
        return generator(self.options.source, seed, self.device)

    def _beginning(self, i: int) -> Tensor:
        options, height, width = self.options, *self.shape[1:]
        other = options.resize_from or (width, height)
        shape = self.shape[0], other[1], other[0]
        draw = self.generators[i] if shape == self.shape else self._generator(self.seeds[i])
        noise = draw(shape)
        if options.variation_strength:
            noise = slerp(options.variation_strength, noise, self._generator(options.variation_seed + i)(shape))
        return noise if shape == self.shape else centred(noise, self.generators[i](self.shape))


def centred(noise: Tensor, around: Tensor) -> Tensor:
    """(C, h, w) put into the middle of another (C, H, W), or its middle where it is the larger."""
    found = around.clone()
    (h, w), (H, W) = noise.shape[1:], around.shape[1:]
    dy, dx = (H - h) // 2, (W - w) // 2
    height, width = (h if dy >= 0 else h + 2 * dy), (w if dx >= 0 else w + 2 * dx)
    to_y, to_x, from_y, from_x = max(dy, 0), max(dx, 0), max(-dy, 0), max(-dx, 0)
    found[:, to_y : to_y + height, to_x : to_x + width] = noise[:, from_y : from_y + height, from_x : from_x + width]
    return found


def slerp(share: float, a: Tensor, b: Tensor) -> Tensor:
    """Spherical interpolation from a (share 0) to b (1), both (C, h, w), the angle taken row by row of (C, h) as A1111.

    Where both point the same way, the line between them.
    """
    cosine = (a / a.norm(dim=1, keepdim=True) * (b / b.norm(dim=1, keepdim=True))).sum(1)  # (C, w)
    if cosine.mean() > 0.9995:
        return a * (1 - share) + b * share
    angle = torch.acos(cosine)
    weight_a, weight_b = torch.sin((1 - share) * angle) / torch.sin(angle), torch.sin(share * angle) / torch.sin(angle)
    return weight_a.unsqueeze(1) * a + weight_b.unsqueeze(1) * b
