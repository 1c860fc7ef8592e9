"""Residual blocks, and the blocks of a level on the way down, in the middle and on the way up (arXiv 2105.05233, the
architecture of Stable Diffusion's UNet).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .checkpointing import Checkpointed
from .levels import Level
from .transformer import KeptText, Transformer2DModel


class ResnetBlock2D(nn.Module):
    """Twice group norm, SiLU and a convolution; the time is added between, the input behind."""

    def __init__(self, given: int, level: Level) -> None:
        super().__init__()
        width = level.width
        self.norm1 = nn.GroupNorm(level.groups, given, level.eps)
        self.conv1 = nn.Conv2d(given, width, 3, padding=1)
        self.time_emb_proj = nn.Linear(level.time, width)
        self.norm2 = nn.GroupNorm(level.groups, width, level.eps)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nonlinearity = nn.SiLU()
        self.conv_shortcut = nn.Conv2d(given, width, 1) if given != width else None

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, given, h, w), time (B, T) -> (B, C, h, w)."""
        y = self.conv1(self.nonlinearity(self.norm1(x)))  # (B, C, h, w)
        y = y + self.time_emb_proj(self.nonlinearity(time))[:, :, None, None]  # (B, C, h, w)
        y = self.conv2(self.nonlinearity(self.norm2(y)))  # (B, C, h, w)
        if self.conv_shortcut is not None:
            x = self.conv_shortcut(x)  # (B, C, h, w)
        result: Tensor = x + y
        return result


class Downsample2D(nn.Module):
    """Half the height and width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h/2, w/2), halves rounded up."""
        y: Tensor = self.conv(x)
        return y


class Upsample2D(nn.Module):
    """Twice the height and width by repeated pixels, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w), or as high and wide as `size`."""
        factor = 2.0 if size is None else None
        y: Tensor = self.conv(nn.functional.interpolate(x, size, factor, mode="nearest"))
        return y


class Block(Checkpointed):
    """Residual blocks of a level, a transformer behind each where the level has them."""

    def __init__(self, given: Sequence[int], level: Level) -> None:
        """given: channels that each residual block gets."""
        super().__init__()
        if level.depths:
            self.attentions = nn.ModuleList(Transformer2DModel(level, depth) for depth in level.depths)
        self.resnets = nn.ModuleList(ResnetBlock2D(channels, level) for channels in given)
        self.attends = bool(level.depths)

    def layer(self, index: int, x: Tensor, time: Tensor, context: Tensor | KeptText) -> Tensor:
        """One residual block and what stands behind it: x (B, given, h, w) -> (B, C, h, w)."""
        x = self.run(self.resnets[index], x, time)  # (B, C, h, w)
        return self.attentions[index](x, context) if self.attends else x  # (B, C, h, w)


class DownBlock2D(Block):
    """A level on the way down."""

    def __init__(self, given: int, level: Level, smallest: bool) -> None:
        super().__init__([given] + [level.width] * (level.layers - 1), level)
        if not smallest:
            self.downsamplers = nn.ModuleList([Downsample2D(level.width)])
        self.shrinks = not smallest

    def forward(self, x: Tensor, time: Tensor, context: Tensor | KeptText) -> list[Tensor]:
        """x (B, given, h, w) -> what each layer made, (B, C, h, w), and unless smallest the half, (B, C, h/2, w/2)."""
        made = []
        for index in range(len(self.resnets)):
            x = self.layer(index, x, time, context)  # (B, C, h, w)
            made.append(x)
        if self.shrinks:
            made.append(self.downsamplers[0](x))  # (B, C, h/2, w/2)
        return made


class UNetMidBlock2DCrossAttn(Block):
    """The middle: residual block, transformer, residual block; of some distilled models a residual block alone."""

    def __init__(self, level: Level) -> None:
        super().__init__([level.width] * level.layers, level)

    def forward(self, x: Tensor, time: Tensor, context: Tensor | KeptText) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        x = self.resnets[0](x, time)  # (B, C, h, w)
        for index in range(1, len(self.resnets)):
            x = self.attentions[index - 1](x, context)  # (B, C, h, w)
            x = self.run(self.resnets[index], x, time)  # (B, C, h, w)
        return x


class UpBlock2D(Block):
    """A level on the way up, shown again what the layers of the way down made."""

    def __init__(self, below: int, skips: Sequence[int], level: Level, largest: bool) -> None:
        """below: channels of what comes from below; skips: of what came down, in the order of the layers here."""
        inner = [below] + [level.width] * (level.layers - 1)
        super().__init__([a + b for a, b in zip(inner, skips, strict=True)], level)
        if not largest:
            self.upsamplers = nn.ModuleList([Upsample2D(level.width)])
        self.grows = not largest

    def forward(
        self, x: Tensor, skips: list[Tensor], time: Tensor, context: Tensor | KeptText, size: tuple[int, int] | None
    ) -> Tensor:
        """x (B, below, h, w) -> (B, C, 2h, 2w), or as high and wide as `size`; of the largest level (B, C, h, w).

        skips: of all levels that are left, this one's last; those of this one, (B, skip, h, w) each, are taken away.
        """
        for index in range(len(self.resnets)):
            x = torch.cat([x, skips.pop()], dim=1)  # (B, below + skip, h, w)
            x = self.layer(index, x, time, context)  # (B, C, h, w)
        return self.upsamplers[0](x, size) if self.grows else x  # (B, C, 2h, 2w) or (B, C, h, w)
