"""ControlNets while drawing: what each is shown, when and how strongly it guides (Zhang et al. 2302.05543).

Settings, their names and their rules are those of A1111's extension (sd-webui-controlnet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ..core.denoiser import Conditioning
from ..families.base import BaseModel, Control
from .control_unit import ControlUnit

if TYPE_CHECKING:
    from PIL.Image import Image

_SOFT = 0.825  # each skip that lies one further from the middle counts so much less


@dataclass(frozen=True)
class Guide:
    """A ControlNet that is loaded, and the picture it is shown: (1, 3, H, W) in [0, 1], in its dtype."""

    unit: ControlUnit
    network: nn.Module
    picture: Tensor

    def added(self, x_t: Tensor, t: Tensor, conditioning_tensors: Sequence[Tensor], rows: Tensor | None) -> Control:
        """What it adds to the UNet. rows: (B,), 1 where the prompt is computed, 0 where the negative one is."""
        picture = self.picture.expand(len(x_t), -1, -1, -1)
        down, middle = self.network(
            x_t.to(picture), t, conditioning_tensors[0], picture, *conditioning_tensors[1:], strength=self.unit.weight
        )
        made = [*down, middle]
        if self.unit.mode != "balanced":
            made = [x * _SOFT ** (len(made) - 1 - i) for i, x in enumerate(made)]
        if self.unit.mode == "control" and rows is not None:
            made = [x * rows.to(x)[:, None, None, None] for x in made]
        return made[:-1], made[-1]


class Controlled:
    """A base that ControlNets steer: a Denoiser. step: the step at work, counted from 0 and kept by the caller."""

    def __init__(self, base: BaseModel, guides: Sequence[Guide], steps: int) -> None:
        self.base, self.guides, self.steps = base, guides, max(1, steps)
        self.step = 0

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        """As the base's own; see `core.denoiser.Denoiser`."""
        active = [guide for guide in self.guides if guide.unit.weight and guide.unit.holds(self.step, self.steps)]
        conditioning_tensors = self.base.context(x_t, conditioning)
        parts = [guide.added(x_t, t, conditioning_tensors, conditioning.control) for guide in active]
        return self.base.predict(x_t, t, conditioning, control=_sum(parts) if parts else None)


def _sum(parts: Sequence[Control]) -> Control:
    down = [sum(skips[1:], skips[0]) for skips in zip(*(part[0] for part in parts), strict=True)]
    middles = [part[1] for part in parts]
    return down, sum(middles[1:], middles[0])


def marked(conditioning: Conditioning, share: float) -> Conditioning:
    """The conditioning with its share of ControlNets that guide the prompt's side alone: 1, or 0 for the negative."""
    tokens = conditioning.tokens
    return replace(conditioning, control=torch.full((len(tokens),), share, device=tokens.device))


def pixels_of(picture: Image) -> Tensor:
    """A picture (RGB) -> (1, 3, H, W) in [0, 1], float32."""
    data = torch.frombuffer(bytearray(picture.convert("RGB").tobytes()), dtype=torch.uint8)
    return data.reshape(1, picture.height, picture.width, 3).permute(0, 3, 1, 2).float() / 255
