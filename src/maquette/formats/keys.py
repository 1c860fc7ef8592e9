"""Names of the same layer in different programs, translated by rule.

Three ways to name a UNet layer are in use: diffusers (`down_blocks.1.attentions.0.proj_in`), LDM single files
(`input_blocks.4.1.proj_in`) and Kohya adapters, which join either with underscores behind a prefix.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PREFIXES = {"unet": "lora_unet", "te": "lora_te", "te1": "lora_te1", "te2": "lora_te2"}
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


# Words of module paths that contain an underscore themselves, longer ones first where one contains another.
_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "transformer_blocks",
    "proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out", "time_emb_proj", "conv_shortcut", "skip_connection",
    "in_layers", "out_layers", "emb_layers", "label_emb", "time_embedding", "add_embedding", "time_embed",
    "linear_1", "linear_2", "conv_in", "conv_out", "text_model", "self_attn", "q_proj", "k_proj", "v_proj", "out_proj",
)  # fmt: skip


@dataclass(frozen=True)
class UNetLayout:
    """What the LDM numbering depends on: residual layers per down block, and which up blocks have attention."""

    layers_per_block: int = 2
    up_attention: frozenset[int] = frozenset({1, 2, 3})


SD_LAYOUT = UNetLayout()
SDXL_LAYOUT = UNetLayout(2, frozenset({0, 1}))


def kohya_module_name(family_name: str, part: str, module_path: str) -> str:
    """The name that Kohya's trainer gives to a module.

    family_name: "sd1", "sd2", "sdxl", "pocket". part: "unet", "te", "te1" or "te2". module_path: the diffusers or
    transformers path. Text encoders always get the `text_model` level, whether or not the path has it (transformers 5
    dropped it from CLIPTextModel); SDXL's UNet is named after the LDM layout, as sd-scripts does.
    """
    if part == "unet":
        path = unet_to_ldm(module_path, SDXL_LAYOUT) if family_name == "sdxl" else module_path
    else:
        path = "text_model." + module_path.removeprefix("text_model.")
    return f"{_PREFIXES[part]}_{path.replace('.', '_')}"


def kohya_module_path(name: str) -> tuple[str, str]:
    """(part, diffusers or transformers path) of a Kohya module name: the inverse of `kohya_module_name`.

    Text encoder paths keep their `text_model.` level. Raises ValueError for names without one of Kohya's prefixes.
    """
    match = re.match(r"lora_(unet|te1|te2|te)_(.+)", name)
    if match is None:
        raise ValueError(f"not a Kohya module name: {name}")
    part, rest = match[1], match[2]
    for word in _WORDS:
        rest = rest.replace(word, word.replace("_", "\0"))
    path = rest.replace("_", ".").replace("\0", "_")
    if part == "unet" and re.match(r"(input_blocks|middle_block|output_blocks|time_embed\.|label_emb|out\.)", path):
        path = unet_from_ldm(path)
    return part, path


def unet_to_ldm(path: str, layout: UNetLayout = SD_LAYOUT) -> str:
    """UNet path (module or parameter), diffusers -> LDM single file, without `model.diffusion_model.`."""
    outer, tail = _split(path, _OUTER_TO_LDM)
    if outer is not None:
        return _OUTER_TO_LDM[outer] + tail
    n = layout.layers_per_block + 1
    if match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", path):
        return f"input_blocks.{1 + n * int(match[1]) + int(match[3])}.{_inner_to_ldm(match[2], match[4])}"
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv(.*)", path):
        return f"input_blocks.{n * (int(match[1]) + 1)}.0.op{match[2]}"
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path):
        position = 2 * int(match[2]) + (match[1] == "attentions")
        return f"middle_block.{position}.{_inner_to_ldm(match[1], match[3])[2:]}"
    if match := re.match(r"up_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)", path):
        return f"output_blocks.{n * int(match[1]) + int(match[3])}.{_inner_to_ldm(match[2], match[4])}"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv(.*)", path):
        block = int(match[1])
        return f"output_blocks.{n * block + n - 1}.{2 if block in layout.up_attention else 1}.conv{match[2]}"
    raise ValueError(f"not a UNet path: {path}")


def unet_from_ldm(path: str, layers_per_block: int = 2) -> str:
    """UNet path, LDM single file (without `model.diffusion_model.`) -> diffusers. Inverse of `unet_to_ldm`."""
    outer, tail = _split(path, _OUTER_FROM_LDM)
    if outer is not None:
        return _OUTER_FROM_LDM[outer] + tail
    n = layers_per_block + 1
    if match := re.match(r"input_blocks\.(\d+)\.(\d+)\.(.+)", path):
        block, layer = divmod(int(match[1]) - 1, n)
        if layer == layers_per_block:
            return f"down_blocks.{block}.downsamplers.0.conv{match[3].removeprefix('op')}"
        return f"down_blocks.{block}.{_inner_from_ldm(match[2], layer, match[3])}"
    if match := re.match(r"middle_block\.(\d+)\.(.+)", path):
        layer, attention = divmod(int(match[1]), 2)
        return f"mid_block.{_inner_from_ldm(str(attention), layer, match[2])}"
    if match := re.match(r"output_blocks\.(\d+)\.(\d+)\.(.+)", path):
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
