"""The UNet of Stable Diffusion: what noise, or what velocity, is in a latent (arXiv 2112.10752; SDXL: 2307.01952)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from . import levels
from .blocks import DownBlock2D, UNetMidBlock2DCrossAttn, UpBlock2D
from .checkpointing import Checkpointed
from .embeddings import ConditioningEmbeddings
from .transformer import KeptText


class UNet2DConditionModel(ConditioningEmbeddings, Checkpointed):
    """A UNet of any width; `config` has the keys of diffusers' class of that name.

    Raises MaquetteError for a configuration that no Stable Diffusion has.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.config = config = levels.configuration(config, levels.UNET_DEFAULTS, "UNet")
        down, mid = levels.down_levels(config), levels.mid_level(config)
        self._up = up = levels.up_levels(config)
        first = down[0].width
        self.conv_in = nn.Conv2d(config.in_channels, first, 3, padding=1)
        self.add_embeddings(first, *levels.added_widths(config))
        given = [first] + [level.width for level in down]  # channels that come into a level, and of the last
        last = len(down) - 1
        self.down_blocks = nn.ModuleList(DownBlock2D(given[i], level, i == last) for i, level in enumerate(down))
        skips = levels.skip_widths(down)
        self.up_blocks = nn.ModuleList()
        below = down[-1].width
        for i, level in enumerate(up):
            self.up_blocks.append(UpBlock2D(below, [skips.pop() for _ in range(level.layers)], level, i == last))
            below = level.width
        self.mid_block = None if mid is None else UNetMidBlock2DCrossAttn(mid)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, first, config.norm_eps)
        self.conv_act = nn.SiLU()
        self.conv_out = nn.Conv2d(first, config.out_channels, 3, padding=1)

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        context: Tensor | KeptText,
        pooled: Tensor | None = None,
        sizes: Tensor | None = None,
        control: tuple[Sequence[Tensor], Tensor] | None = None,
        features: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """x: (B, in, h, w) noisy latents, and what else is known of each pixel. t: (B,) timesteps. context: (B, m, D).

        pooled, sizes: (B, P) and (B, 6), of SDXL only. control: what a ControlNet returns. features: where given, it
        gets what every block made, by the block's name: "down_blocks.0" …, "mid_block", "up_blocks.0" ….
        Result: (B, out, h, w).
        """
        time = self.embed(x, t, pooled, sizes)  # (B, T)
        x = self.conv_in(x)  # (B, C0, h, w)
        skips = [x]
        for i, block in enumerate(self.down_blocks):
            skips += block(skips[-1], time, context)  # each (B, Ci, h/2^i, w/2^i), the last halved, rounded up
            _keep(features, f"down_blocks.{i}", skips[-1])
        x = skips[-1]  # (B, C, h/8, w/8); SDXL and its refiner: h/4, h/8
        if self.mid_block is not None:
            x = self.mid_block(x, time, context)  # (B, C, h/8, w/8)
            _keep(features, "mid_block", x)
        if control is not None:
            skips = [skip + more for skip, more in zip(skips, control[0], strict=True)]
            x = x + control[1]  # (B, C, h/8, w/8)
        for i, (block, level) in enumerate(zip(self.up_blocks, self._up, strict=True)):
            x = block(x, skips, time, context, _size_above(x, skips, level.layers))  # (B, Ci, 2h, 2w)
            _keep(features, f"up_blocks.{i}", x)
        y: Tensor = self.conv_out(self.conv_act(self.conv_norm_out(x)))  # (B, out, h, w)
        return y


def _keep(features: dict[str, Tensor] | None, name: str, made: Tensor) -> None:
    if features is not None:
        features[name] = made


def _size_above(x: Tensor, skips: Sequence[Tensor], here: int) -> tuple[int, int] | None:
    """Height and width of the level above, where it is not twice as high and wide; `here`: skips of this level."""
    if len(skips) <= here:
        return None
    height, width = skips[-here - 1].shape[2:]
    return None if (height, width) == (2 * x.shape[2], 2 * x.shape[3]) else (height, width)
