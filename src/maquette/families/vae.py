"""The autoencoder of latent diffusion (Rombach et al. 2022, arXiv 2112.10752, section 3.1 and appendix G).

Shapes on the right: B pictures of H x W pixels; L levels, each half as high and wide as the one before, so latents have
h = H / 2^(L-1) rows and w = W / 2^(L-1) columns; Z latent channels (4); C channels of a level, C_1 to C_L.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import MaquetteError
from .architecture import Config, complete

DEFAULTS: dict[str, Any] = {  # those of config.json: keys that are missing there have these values
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 32,
    "sample_size": 32,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "force_upcast": True,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}
FIXED: dict[str, tuple[Any, ...]] = {
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "act_fn": ("silu", "swish"),
}
EPSILON = 1e-6  # of every group norm


class ResidualBlock(nn.Module):
    """Twice group norm, SiLU and a convolution, added to the input (arXiv 1512.03385, norms in front)."""

    def __init__(self, given: int, width: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, given, EPSILON)
        self.conv1 = nn.Conv2d(given, width, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, width, EPSILON)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(given, width, 1) if given != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h, w) -> (B, C, h, w)."""
        y = self.conv1(F.silu(self.norm1(x)))  # (B, C, h, w)
        y = self.conv2(F.silu(self.norm2(y)))  # (B, C, h, w)
        out: Tensor = self.conv_shortcut(x) + y  # (B, C, h, w)
        return out


class Attention(nn.Module):
    """Self-attention of one head among all places of the smallest picture, added to the input."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(groups, width, EPSILON)
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)."""
        y = self.group_norm(x.flatten(2)).transpose(1, 2)  # (B, h w, C)
        q, k, v = (project(y)[:, None] for project in (self.to_q, self.to_k, self.to_v))  # (B, 1, h w, C)
        y = F.scaled_dot_product_attention(q, k, v)[:, 0]  # (B, h w, C)
        y = self.to_out[0](y).transpose(1, 2).unflatten(2, x.shape[2:])  # (B, C, h, w)
        result: Tensor = y + x
        return result


class Downsample(nn.Module):
    """Half the height and width; zeros stand at the right and below only."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, 2h, 2w) -> (B, C, h, w)."""
        y: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))  # (B, C, h, w)
        return y


class Upsample(nn.Module):
    """Twice the height and width by repeated pixels, and a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w)."""
        y: Tensor = self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))  # (B, C, 2h, 2w)
        return y


class Level(nn.Module):
    """The residual blocks of one resolution, and the step to the next where there is one."""

    def __init__(self, given: int, width: int, layers: int, groups: int) -> None:
        super().__init__()
        inside = [given] + [width] * (layers - 1)
        self.resnets = nn.ModuleList(ResidualBlock(channels, width, groups) for channels in inside)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C', h, w) -> (B, C, h, w), (B, C, h/2, w/2) on the way down, (B, C, 2h, 2w) on the way up."""
        for resnet in self.resnets:
            x = resnet(x)  # (B, C, h, w)
        for step in (*getattr(self, "downsamplers", ()), *getattr(self, "upsamplers", ())):
            x = step(x)  # (B, C, h/2, w/2) or (B, C, 2h, 2w)
        return x


class Middle(nn.Module):
    """The smallest picture: residual block, attention (SD's autoencoders have it), residual block."""

    def __init__(self, width: int, groups: int, attends: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([Attention(width, groups)] if attends else [])
        self.resnets = nn.ModuleList(ResidualBlock(width, width, groups) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_L, h, w) -> (B, C_L, h, w)."""
        x = self.resnets[0](x)  # (B, C_L, h, w)
        for attention in self.attentions:
            x = attention(x)  # (B, C_L, h, w)
        x = self.resnets[1](x)  # (B, C_L, h, w)
        return x


class Encoder(nn.Module):
    """Pixels to the moments of their latents."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, groups = list(config.block_out_channels), config.norm_num_groups
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for given, width in zip([widths[0], *widths], widths, strict=False):
            self.down_blocks.append(Level(given, width, config.layers_per_block, groups))
        for level, width in zip(self.down_blocks[:-1], widths, strict=False):
            level.downsamplers = nn.ModuleList([Downsample(width)])
        self.mid_block = Middle(widths[-1], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2 Z, h, w)."""
        x = self.conv_in(x)  # (B, C_1, H, W)
        for level in self.down_blocks:
            x = level(x)  # level i < L: (B, C_i, H / 2^i, W / 2^i); level L: (B, C_L, h, w)
        x = self.mid_block(x)  # (B, C_L, h, w)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, 2 Z, h, w): mean and log variance
        return x


class Decoder(nn.Module):
    """Latents to pixels; a level has one residual block more than the encoder's."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        widths, groups = list(config.block_out_channels)[::-1], config.norm_num_groups
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.up_blocks = nn.ModuleList()
        for given, width in zip([widths[0], *widths], widths, strict=False):
            self.up_blocks.append(Level(given, width, config.layers_per_block + 1, groups))
        for level, width in zip(self.up_blocks[:-1], widths, strict=False):
            level.upsamplers = nn.ModuleList([Upsample(width)])
        self.mid_block = Middle(widths[0], groups, config.mid_block_add_attention)
        self.conv_norm_out = nn.GroupNorm(groups, widths[-1], EPSILON)
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """(B, Z, h, w) -> (B, 3, H, W)."""
        x = self.conv_in(z)  # (B, C_L, h, w), C_L of the deepest level
        x = self.mid_block(x)  # (B, C_L, h, w)
        for level in self.up_blocks:
            x = level(x)  # level i from L down to 2: (B, C_i, H / 2^(i-2), W / 2^(i-2)); level 1: (B, C_1, H, W)
        x = self.conv_out(F.silu(self.conv_norm_out(x)))  # (B, 3, H, W)
        result: Tensor = x
        return result


class Posterior(NamedTuple):
    """The normal distribution q(z | x) of a picture's latents: mean and standard deviation, (B, Z, h, w) each."""

    mean: Tensor
    std: Tensor


class AutoencoderKL(nn.Module):
    """Encoder and decoder, trained with a small KL penalty; its parameters are named as diffusers names them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Raises MaquetteError for a configuration that no Stable Diffusion has."""
        super().__init__()
        self.config = complete(config, DEFAULTS, FIXED, "VAE")
        levels, channels = len(self.config.block_out_channels), self.config.latent_channels
        for key in ("down_block_types", "up_block_types"):
            if len(self.config[key]) != levels:
                raise MaquetteError(f"The VAE's configuration has {levels} widths, but {len(self.config[key])} {key}.")
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)
        both = 2 * channels
        self.quant_conv = nn.Conv2d(both, both, 1) if self.config.use_quant_conv else nn.Identity()
        self.post_quant_conv = nn.Conv2d(channels, channels, 1) if self.config.use_post_quant_conv else nn.Identity()

    def encode(self, x: Tensor) -> Posterior:
        """(B, 3, H, W) in [-1, 1] -> mean and standard deviation, (B, Z, h, w) each, as the autoencoder scales them."""
        moments = self.quant_conv(self.encoder(x))  # (B, 2 Z, h, w)
        mean, logvar = moments.chunk(2, dim=1)  # (B, Z, h, w) each
        std = torch.exp(0.5 * logvar.clamp(-30.0, 20.0))  # (B, Z, h, w)
        return Posterior(mean, std)

    def decode(self, z: Tensor) -> Tensor:
        """(B, Z, h, w), as the autoencoder scales them -> (B, 3, H, W), about [-1, 1]."""
        x: Tensor = self.decoder(self.post_quant_conv(z))  # (B, 3, H, W)
        return x
