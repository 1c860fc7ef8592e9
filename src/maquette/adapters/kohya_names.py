"""Kohya's names of layers: a path of diffusers or LDM, its dots made underscores, behind the network's prefix.

Within the program a layer is called as `module_names` says; `written` and `read` translate.
"""

from __future__ import annotations

import re

from ..formats.keys import SDXL_LAYOUT, text_layer, unet_layer, unet_to_ldm, with_level
from .module_names import module_name, network_and_path

_PREFIXES = {"unet": "lora_unet", "te": "lora_te", "te1": "lora_te1", "te2": "lora_te2"}
# What Kohya calls the networks -> what they are called here.
NETWORKS = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}
# Words of module paths that contain an underscore themselves, longer ones first where one contains another.
_WORDS = (
    "down_blocks", "up_blocks", "mid_block", "input_blocks", "output_blocks", "middle_block", "transformer_blocks",
    "proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out", "time_emb_proj", "conv_shortcut", "skip_connection",
    "in_layers", "out_layers", "emb_layers", "label_emb", "time_embedding", "add_embedding", "time_embed",
    "linear_1", "linear_2", "conv_in", "conv_out", "conv_norm_out", "text_model", "self_attn", "q_proj", "k_proj",
    "v_proj", "out_proj", "final_layer_norm", "layer_norm1", "layer_norm2",
    "text_projection", "token_embedding", "position_embedding",
)  # fmt: skip


def kohya_module_name(family_name: str, part: str, module_path: str) -> str:
    """The name that Kohya's trainer gives to a module.

    family_name: "sd1", "sd2", "sdxl", "pocket". part: "unet", "te", "te1" or "te2". module_path: the diffusers or
    transformers path. Text encoders always get the `text_model` level, whether or not the path has it (transformers 5
    dropped it from CLIPTextModel); SDXL's UNet is named after the LDM layout, as sd-scripts does.
    """
    if part == "unet":
        path = unet_to_ldm(module_path, SDXL_LAYOUT) if family_name == "sdxl" else module_path
    else:
        path = with_level(module_path.removeprefix("text_model."))
    return f"{_PREFIXES[part]}_{path.replace('.', '_')}"


def named(part: str, path: str) -> str:
    """A module's name. part: what Kohya calls its network."""
    return module_name(NETWORKS[part], path)


def written(family_name: str, name: str) -> str:
    """A module's name as Kohya's trainer writes it for a family; one that no Stable Diffusion has stays as it is."""
    found = network_and_path(name)
    if found is None:
        return name
    network, path = found
    part = {"unet": "unet", "text_encoder_2": "te2"}.get(network, "te1" if family_name == "sdxl" else "te")
    return kohya_module_name(family_name, part, path)


def read(name: str) -> str:
    """A module's name, from Kohya's: the inverse of `written`. Raises ValueError as `kohya_module_path`."""
    return named(*kohya_module_path(name))


def layer(name: str) -> tuple[str, str]:
    """(network, path) of a module, by its name here or Kohya's. Raises ValueError for names of no layer of Stable
    Diffusion.
    """
    found = network_and_path(name) or network_and_path(read(name))
    assert found is not None
    return found


def dotted(joined: str) -> str:
    """A path whose dots a trainer made underscores (`down_blocks_0_attentions_…`) with its dots again."""
    for word in _WORDS:
        joined = joined.replace(word, word.replace("_", "\0"))
    return joined.replace("_", ".").replace("\0", "_")


def kohya_module_path(name: str) -> tuple[str, str]:
    """(part, diffusers or transformers path) of a Kohya module name: the inverse of `kohya_module_name`.

    Text encoder paths keep their `text_model.` level. Raises ValueError for names of no layer of Stable Diffusion.
    """
    match = re.match(r"lora_(unet|te1|te2|te)_(.+)", name)
    if match is None:
        raise ValueError(f"not a Kohya module name: {name}")
    path = (unet_layer if match[1] == "unet" else text_layer)(dotted(match[2]))
    if path is None:
        raise ValueError(f"{name} is no layer of Stable Diffusion")
    return match[1], path
