"""ControlNet files: the layout of their first publication (LDM, `control_model.…`) in diffusers' names, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from . import keys

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "control_model."  # bare in files that hold nothing else
HEAD_LDM, HEAD_DIFFUSERS = "input_hint_block.0.weight", "controlnet_cond_embedding.conv_in.weight"
_HINT_LAST = 14  # of the hint block's convolutions 0, 2 … 14, with an activation between each two


def from_ldm(name: str, layers_per_block: int = 2) -> str:
    """Parameter name, LDM (without `control_model.`) -> diffusers. Raises ValueError for what no ControlNet has."""
    if match := re.fullmatch(r"input_hint_block\.([0-9]{1,3})\.(weight|bias)", name):
        index = int(match[1])
        place = {0: "conv_in", _HINT_LAST: "conv_out"}.get(index, f"blocks.{index // 2 - 1}")
        return f"controlnet_cond_embedding.{place}.{match[2]}"
    if match := re.fullmatch(r"zero_convs\.([0-9]{1,3})\.0\.(weight|bias)", name):
        return f"controlnet_down_blocks.{match[1]}.{match[2]}"
    if match := re.fullmatch(r"middle_block_out\.0\.(weight|bias)", name):
        return f"controlnet_mid_block.{match[1]}"
    return keys.unet_from_ldm(name, layers_per_block)


def to_ldm(name: str, layout: keys.UNetLayout = keys.SD_LAYOUT) -> str:
    """Parameter name, diffusers -> LDM. Inverse of `from_ldm`."""
    if match := re.fullmatch(r"controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d{1,3}))\.(weight|bias)", name):
        index = {"conv_in": 0, "conv_out": _HINT_LAST}.get(match[1])
        return f"input_hint_block.{2 * int(match[2]) + 2 if index is None else index}.{match[3]}"
    if match := re.fullmatch(r"controlnet_down_blocks\.([0-9]{1,3})\.(weight|bias)", name):
        return f"zero_convs.{match[1]}.0.{match[2]}"
    if match := re.fullmatch(r"controlnet_mid_block\.(weight|bias)", name):
        return f"middle_block_out.0.{match[1]}"
    return keys.unet_to_ldm(name, layout)


def read(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ControlNet's tensors under diffusers' names, out of a file of either layout; views, nothing is copied.

    Whatever stands beside a `control_model.` (the first files held the whole base model too) is left out. Raises
    ValueError for a name that no ControlNet has.
    """
    if HEAD_DIFFUSERS in tensors:
        return dict(tensors)
    own = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items() if name.startswith(PREFIX)}
    own = own or dict(tensors)
    first = min((int(m[1]) for name in own if (m := re.match(r"input_blocks\.([0-9]{1,3})\.0\.op\.", name))), default=3)
    return {from_ldm(name, first - 1): tensor for name, tensor in own.items()}
