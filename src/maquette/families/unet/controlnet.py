"""ControlNet: the UNet's way down again, shown a picture, which tells the UNet's way up more (arXiv 2302.05543)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from . import levels
from .blocks import DownBlock2D, UNetMidBlock2DCrossAttn
from .checkpointing import Checkpointed
from .embeddings import ConditioningEmbeddings
from .transformer import KeptText


class ControlNetConditioningEmbedding(nn.Module):
    """The picture, an eighth as high and wide, in the channels of the UNet's first level."""

    def __init__(self, channels: int, widths: Sequence[int], width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
        self.conv_out = nn.Conv2d(widths[-1], width, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """(B, 3, 8h, 8w) -> (B, C, h, w)."""
        y = nn.functional.silu(self.conv_in(picture))  # (B, 16, 8h, 8w)
        for block in self.blocks:
            y = nn.functional.silu(block(y))  # (B, 16 … 256, 8h … h, 8w … w)
        out: Tensor = self.conv_out(y)  # (B, C, h, w)
        return out


class ControlNetModel(ConditioningEmbeddings, Checkpointed):
    """A ControlNet of any width; `config` has the keys of diffusers' class of that name.

    Raises MaquetteError for a configuration that no ControlNet of Stable Diffusion has.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = levels.configuration(config, levels.CONTROLNET_DEFAULTS, "ControlNet")
        down, mid = levels.down_levels(config), levels.mid_level(config)
        first, last = down[0].width, len(down) - 1
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.add_embeddings(first, *levels.added_widths(config))
        widths = config.conditioning_embedding_out_channels
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(config.conditioning_channels, widths, first)
        given = [first] + [level.width for level in down]
        self.down_blocks = nn.ModuleList(DownBlock2D(given[i], level, i == last) for i, level in enumerate(down))
        self.controlnet_down_blocks = nn.ModuleList(nn.Conv2d(width, width, 1) for width in levels.skip_widths(down))
        self.controlnet_mid_block = nn.Conv2d(down[-1].width, down[-1].width, 1)
        self.mid_block = None if mid is None else UNetMidBlock2DCrossAttn(mid)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | KeptText,
        picture: Tensor,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
        strength: float = 1.0,
    ) -> tuple[list[Tensor], Tensor]:
        """x (B, 4, h, w), t (B,), context (B, m, D), pooled and sizes as the UNet takes them; picture (B, 3, 8h, 8w).

        Result: what to add to each of the UNet's skips, (B, Ci, h/2^i, w/2^i), and to its middle, (B, C, h/8, w/8).
        """
        if self.config.controlnet_conditioning_channel_order == "bgr":
            picture = picture.flip(1)
        time = self.embed(x, t, pooled, sizes)  # (B, T)
        made = [self.conv_in(x) + self.controlnet_cond_embedding(picture)]  # (B, C0, h, w)
        for block in self.down_blocks:
            made += block(made[-1], time, context)  # (B, Ci, h/2^i, w/2^i)
        middle = made[-1] if self.mid_block is None else self.mid_block(made[-1], time, context)  # (B, C, h/8, w/8)
        # the paper's zero convolutions, section 3.1: (B, Ci, h/2^i, w/2^i) each
        down = [zero(skip) * strength for zero, skip in zip(self.controlnet_down_blocks, made, strict=True)]
        return down, self.controlnet_mid_block(middle) * strength
