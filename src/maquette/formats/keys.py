"""Names of the same layer in different programs, translated by rule.

Two ways to name a UNet layer are in use: diffusers (`down_blocks.1.attentions.0.proj_in`) and LDM single files
(`input_blocks.4.1.proj_in`); Kohya's adapters join either with underscores (`adapters.kohya_names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_RESNET_TO_LDM = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_RESNET_FROM_LDM = {ldm: ours for ours, ldm in _RESNET_TO_LDM.items()}
_OUTER_TO_LDM = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OUTER_FROM_LDM = {ldm: ours for ours, ldm in _OUTER_TO_LDM.items()}


_N = r"[0-9]{1,3}"  # a block's or layer's number: no network has more digits, and longer ones cost time
_LDM_START = re.compile(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\.")
_IN_RESNET = "norm1|conv1|time_emb_proj|norm2|conv2|conv_shortcut"
_IN_TRANSFORMER = r"norm[123]|attn[12]\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)"
_UNET_LAYER = re.compile(
    rf"conv_in|conv_out|conv_norm_out|(time|add)_embedding\.linear_[12]"
    rf"|((down|up)_blocks\.{_N}|mid_block)\.resnets\.{_N}\.({_IN_RESNET})"
    rf"|((down|up)_blocks\.{_N}|mid_block)\.attentions\.{_N}\."
    rf"(norm|proj_in|proj_out|transformer_blocks\.{_N}\.({_IN_TRANSFORMER}))"
    rf"|down_blocks\.{_N}\.downsamplers\.0\.conv|up_blocks\.{_N}\.upsamplers\.0\.conv"
)
_TEXT_LAYER = re.compile(
    rf"encoder\.layers\.{_N}\.(self_attn\.(q|k|v|out)_proj|mlp\.fc[12]|layer_norm[12])|final_layer_norm"
    r"|embeddings\.(token|position)_embedding|text_projection"
)


@dataclass(frozen=True)
class UNetLayout:
    """What the LDM numbering depends on: residual layers per down block, and which up blocks have attention."""

    layers_per_block: int = 2
    up_attention: frozenset[int] = frozenset({1, 2, 3})


SD_LAYOUT = UNetLayout()
SDXL_LAYOUT = UNetLayout(2, frozenset({0, 1}))


def unet_layer(path: str) -> str | None:
    """The diffusers path of a UNet layer with a weight, from its diffusers or LDM path; None for what no Stable
    Diffusion UNet has, of whatever depth and width.
    """
    if _LDM_START.match(path):
        try:
            path = unet_from_ldm(path)
        except ValueError:
            return None
    return path if _UNET_LAYER.fullmatch(path) else None


def text_layer(path: str) -> str | None:
    """The transformers path of a CLIP text encoder's layer with a weight, with its `text_model.` level, or None."""
    path = path.removeprefix("text_model.")
    return with_level(path) if _TEXT_LAYER.fullmatch(path) else None


def with_level(path: str) -> str:
    """All layers but the projection stand within `text_model`."""
    return path if path == "text_projection" else f"text_model.{path}"


def unet_to_ldm(path: str, layout: UNetLayout = SD_LAYOUT) -> str:
    """UNet path (module or parameter), diffusers -> LDM single file, without `model.diffusion_model.`."""
    outer, tail = _split(path, _OUTER_TO_LDM)
    if outer is not None:
        return _OUTER_TO_LDM[outer] + tail
    n = layout.layers_per_block + 1
    if match := re.match(r"down_blocks\.([0-9]{1,3})\.(resnets|attentions)\.([0-9]{1,3})\.(.+)", path):
        return f"input_blocks.{1 + n * int(match[1]) + int(match[3])}.{_inner_to_ldm(match[2], match[4])}"
    if match := re.match(r"down_blocks\.([0-9]{1,3})\.downsamplers\.0\.conv(.*)", path):
        return f"input_blocks.{n * (int(match[1]) + 1)}.0.op{match[2]}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.([0-9]{1,3})\.(.+)", path):
        position = 2 * int(match[2]) + (match[1] == "attentions")
        return f"middle_block.{position}.{_inner_to_ldm(match[1], match[3])[2:]}"
    if match := re.match(r"up_blocks\.([0-9]{1,3})\.(resnets|attentions)\.([0-9]{1,3})\.(.+)", path):
        return f"output_blocks.{n * int(match[1]) + int(match[3])}.{_inner_to_ldm(match[2], match[4])}"
    if match := re.match(r"up_blocks\.([0-9]{1,3})\.upsamplers\.0\.conv(.*)", path):
        block = int(match[1])
        return f"output_blocks.{n * block + n - 1}.{2 if block in layout.up_attention else 1}.conv{match[2]}"
    raise ValueError(f"not a UNet path: {path}")


def unet_from_ldm(path: str, layers_per_block: int = 2) -> str:
    """UNet path, LDM single file (without `model.diffusion_model.`) -> diffusers. Inverse of `unet_to_ldm`."""
    outer, tail = _split(path, _OUTER_FROM_LDM)
    if outer is not None:
        return _OUTER_FROM_LDM[outer] + tail
    n = layers_per_block + 1
    if match := re.match(r"input_blocks\.([0-9]{1,3})\.([0-9]{1,3})\.(.+)", path):
        block, layer = divmod(int(match[1]) - 1, n)
        if layer == layers_per_block:
            return f"down_blocks.{block}.downsamplers.0.conv{match[3].removeprefix('op')}"
        return f"down_blocks.{block}.{_inner_from_ldm(match[2], layer, match[3])}"
    if match := re.match(r"middle_block\.([0-9]{1,3})\.(.+)", path):
        layer, attention = divmod(int(match[1]), 2)
        return f"mid_block.{_inner_from_ldm(str(attention), layer, match[2])}"
    if match := re.match(r"output_blocks\.([0-9]{1,3})\.([0-9]{1,3})\.(.+)", path):
        block, layer = divmod(int(match[1]), n)
        if match[3] == "conv" or match[3].startswith("conv."):
            return f"up_blocks.{block}.upsamplers.0.{match[3]}"
        return f"up_blocks.{block}.{_inner_from_ldm(match[2], layer, match[3])}"
    raise ValueError(f"not an LDM UNet path: {path}")


def _split(path: str, table: dict[str, str]) -> tuple[str | None, str]:
    """Split `path` into a head found in the table and the tail with its dot; head None when there is none."""
    for head in table:
        if path == head or path.startswith(head + "."):
            return head, path[len(head) :]
    return None, path


def _translate(path: str, table: dict[str, str]) -> str:
    head, tail = _split(path, table)
    if head is None:
        raise ValueError(f"unknown layer: {path}")
    return table[head] + tail


def _inner_to_ldm(kind: str, rest: str) -> str:
    """Path inside a block: resnets stand at position 0 with other layer names, attentions at 1 with the same names."""
    return f"1.{rest}" if kind == "attentions" else f"0.{_translate(rest, _RESNET_TO_LDM)}"


def _inner_from_ldm(position: str, layer: int, rest: str) -> str:
    if position == "0":
        return f"resnets.{layer}.{_translate(rest, _RESNET_FROM_LDM)}"
    return f"attentions.{layer}.{rest}"
