"""The architecture of a UNet or ControlNet as a table, read off the dictionary that diffusers keeps as config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...errors import MaquetteError
from ..architecture import Config, complete

UNET_DEFAULTS: dict[str, Any] = {
    "sample_size": None,
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
    "reverse_transformer_layers_per_block": None,
    "attention_head_dim": 8,  # which are the heads, whatever it says; SD1: 8, SD2 and SDXL: width / 64
    "use_linear_projection": False,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "upcast_attention": False,  # has no effect on attention by one fused function
}
PER_LEVEL = (
    "down_block_types", "up_block_types", "attention_head_dim", "cross_attention_dim", "layers_per_block",
    "transformer_layers_per_block", "reverse_transformer_layers_per_block",
)  # fmt: skip
_ONLY_UNET = ("sample_size", "out_channels", "up_block_types", "reverse_transformer_layers_per_block")
CONTROLNET_DEFAULTS: dict[str, Any] = {key: value for key, value in UNET_DEFAULTS.items() if key not in _ONLY_UNET} | {
    "conditioning_channels": 3,
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
    "controlnet_conditioning_channel_order": "rgb",
}

# What else diffusers can build, and the only values that Stable Diffusion has.
FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "attention_type": ("default",),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "class_embeddings_concat": (False,),
    "controlnet_conditioning_channel_order": ("rgb", "bgr"),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "cross_attention_norm": (None,),
    "downsample_padding": (1,),
    "dropout": (0.0,),
    "dual_cross_attention": (False,),
    "encoder_hid_dim": (None,),
    "encoder_hid_dim_type": (None,),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "global_pool_conditions": (False,),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2DCrossAttn", "UNetMidBlock2D", None),
    "num_attention_heads": (None,),
    "num_class_embeds": (None,),
    "resnet_out_scale_factor": (1.0,),
    "resnet_skip_time_act": (False,),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_act_fn": (None,),
    "time_embedding_dim": (None,),
    "time_embedding_type": ("positional",),
    "timestep_post_act": (None,),
    # one value for every level
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "only_cross_attention": (False,),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
}


@dataclass(frozen=True)
class Level:
    """What the blocks of one resolution have in common.

    width: channels. layers: residual blocks. depths: blocks of the transformer behind each of them; empty for none.
    heads: of attention. context: channels of the text. linear: whether projections around a transformer are linear
    layers instead of 1 x 1 convolutions. time: channels of the time embedding. groups, eps: of the group norms.
    """

    width: int
    layers: int
    depths: tuple[int, ...]
    heads: int
    context: int
    linear: bool
    time: int
    groups: int
    eps: float


def configuration(given: Mapping[str, Any], defaults: Mapping[str, Any], network: str) -> Config:
    """The configuration with its defaults. network: its name in sentences of MaquetteError, raised for what no Stable
    Diffusion has and for lists of other lengths than there are levels.
    """
    config = complete(given, defaults, FIXED, network)
    levels = len(config.block_out_channels)
    for key in PER_LEVEL:
        if isinstance(config.get(key), list | tuple) and len(config[key]) != levels:
            raise MaquetteError(
                f"The configuration of the {network} has {levels} block_out_channels, but {len(config[key])} {key}."
            )
    return config


def down_levels(config: Config) -> list[Level]:
    """From the largest picture to the smallest."""
    widths = config.block_out_channels
    rows = zip(
        config.down_block_types,
        widths,
        *(_each(config[key], len(widths)) for key in ("layers_per_block", "attention_head_dim", "cross_attention_dim")),
        _each(config.transformer_layers_per_block, len(widths)),
        strict=True,
    )
    return [
        Level(
            width,
            layers,
            _depths(depth, layers) if "CrossAttn" in kind else (),
            heads,
            context,
            config.use_linear_projection,
            4 * widths[0],
            config.norm_num_groups,
            config.norm_eps,
        )
        for kind, width, layers, heads, context, depth in rows
    ]


def mid_level(config: Config) -> Level | None:
    """The smallest picture's again: one residual block, and behind it a transformer and one more."""
    if config.mid_block_type is None:
        return None
    depth = _each(config.transformer_layers_per_block, len(config.block_out_channels))[-1]
    depths = _depths(depth, 1)[:1] if "CrossAttn" in config.mid_block_type else ()
    return replace(down_levels(config)[-1], layers=1 + len(depths), depths=depths)


def up_levels(config: Config) -> list[Level]:
    """From the smallest picture to the largest; one residual block more than on the way down."""
    turned = config.reverse_transformer_layers_per_block
    if turned is None:
        turned = _each(config.transformer_layers_per_block, len(config.block_out_channels))[::-1]
    return [
        replace(
            level,
            layers=level.layers + 1,
            depths=_depths(depth, level.layers + 1) if "CrossAttn" in kind else (),
        )
        for level, kind, depth in zip(reversed(down_levels(config)), config.up_block_types, turned, strict=True)
    ]


def added_widths(config: Config) -> tuple[int | None, int | None]:
    """Channels of each size number, and of all of them with the pooled text, in SDXL."""
    if config.addition_embed_type is None:
        return None, None
    return config.addition_time_embed_dim, config.projection_class_embeddings_input_dim


def skip_widths(down: Sequence[Level]) -> list[int]:
    """Channels of what the way down hands over: conv_in's, each layer's, and each half's but of the last level."""
    widths = [down[0].width]
    for level in down:
        widths += [level.width] * (level.layers + 1)
    return widths[:-1]


def _each(value: Any, levels: int) -> list[Any]:
    """One value for every level."""
    return list(value) if isinstance(value, list | tuple) else [value] * levels


def _depths(depth: int | Sequence[int], layers: int) -> tuple[int, ...]:
    """One number for all transformers of a level, or one for each."""
    return tuple(_each(depth, layers))
