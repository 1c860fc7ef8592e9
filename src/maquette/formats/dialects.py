"""Adapter files of other programs, as keys: diffusers (new and old), PEFT and LyCORIS names <-> Kohya names.

Everything becomes Kohya names and parts, the project's one in-memory form; `to_diffusers` goes the other way.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from . import adapter_maths, keys

_PARTS = {"unet": "unet", "text_encoder": "te", "text_encoder_2": "te2", "transformer": "unet"}
_FACTORS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    "alpha": "alpha",
    **{part: part for part in sorted(adapter_maths.KNOWN_PARTS) if part.startswith(("hada_", "lokr_"))},
}
_SUFFIX = re.compile(r"\.(" + "|".join(re.escape(part) for part in sorted(_FACTORS, key=len, reverse=True)) + r")$")
_OLD_PROCESSOR = re.compile(r"\.processor\.(to_[qkv]|to_out)_lora\.(down|up)\.weight$")


def to_kohya(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Kohya keys for every key of a dialect; keys that are Kohya's already, or not understood, are passed through.

    metadata: the file's, in which diffusers keeps alphas. config: PEFT's adapter_config.json, empty when there is none.
    """
    dotted = {key: _take_apart(key) for key in tensors}
    family = _family({key: found for key, found in dotted.items() if found}, tensors)
    result: dict[str, Tensor] = {}
    paths: dict[str, tuple[str, str]] = {}  # Kohya name -> part, dotted path
    for key, tensor in tensors.items():
        found = dotted[key]
        if found is None:
            result[_kohya_key(key)] = tensor
            continue
        part, path, factor = found
        if part == "te" and family == "sdxl":
            part = "te1"
        name = keys.kohya_module_name(family, part, path)
        paths[name] = (part, path)
        result[f"{name}.{factor}"] = _magnitude(tensor) if factor == "dora_scale" else tensor
    for name, (part, path) in paths.items():
        _add_alpha(result, name, _scale_settings(part, metadata, config), path)
    return result


def _take_apart(key: str) -> tuple[str, str, str] | None:
    """(part, module path, Kohya factor) of a dotted key; None for keys that are not dotted this way."""
    if key.startswith(("lora_", "lycoris_", "oft_")):
        return None
    key = _OLD_PROCESSOR.sub(lambda m: f".{'to_out.0' if m[1] == 'to_out' else m[1]}.lora.{m[2]}.weight", key)
    match = _SUFFIX.search(key)
    if match is None:
        return None
    path = key[: match.start()]
    part = "unet"
    head, _, rest = path.partition(".")
    if head in _PARTS:
        part, path = _PARTS[head], rest
    path = path.removeprefix("base_model.model.")
    if re.match(r"(text_model\.)?encoder\.layers\.", path) and part == "unet":
        part = "te"
    return part, path, _FACTORS[match[1]]


def _family(dotted: Mapping[str, tuple[str, str, str]], tensors: Mapping[str, Tensor]) -> str:
    """ "sdxl" or "sd1": all that the names depend on."""
    for key, (part, path, factor) in dotted.items():
        if part == "te2" or path.startswith("add_embedding.") or re.search(r"\.transformer_blocks\.[1-9]", path):
            return "sdxl"
        cross_attention = part == "unet" and path.endswith(("attn2.to_k", "attn2.to_v"))
        if cross_attention and factor == "lora_down.weight" and tensors[key].shape[1] == 2048:
            return "sdxl"
    return "sd1"


def _kohya_key(key: str) -> str:
    """LyCORIS's own prefix, and SDXL layers named as diffusers does, under the names that Kohya's trainer gives."""
    if key.startswith("lycoris_"):
        rest = key.removeprefix("lycoris_")
        key = f"lora_te_{rest}" if rest.startswith("text_model_") else f"lora_unet_{rest}"
    return key


def sgm_names(names: Mapping[str, Any]) -> dict[str, str]:
    """Diffusers-named UNet modules of an SDXL adapter -> the LDM names of sd-scripts. Only for adapters known to be
    SDXL.
    """
    result = {}
    for name in names:
        if name.startswith(("lora_unet_down_blocks_", "lora_unet_up_blocks_", "lora_unet_mid_block_")):
            part, path = keys.kohya_module_path(name)
            result[name] = keys.kohya_module_name("sdxl", part, path)
    return result


def _magnitude(tensor: Tensor) -> Tensor:
    """PEFT's magnitude, (out,) or (1, out, 1, 1) -> Kohya's (out, 1[, 1, 1])."""
    return tensor.reshape(-1, *([1] * max(1, tensor.ndim - 1)))


def _scale_settings(part: str, metadata: Mapping[str, str], config: Mapping[str, Any]) -> Mapping[str, Any]:
    if config:
        return config
    try:
        told = json.loads(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        return {}
    prefix = {"unet": "unet.", "te": "text_encoder.", "te1": "text_encoder.", "te2": "text_encoder_2."}[part]
    if not isinstance(told, dict):
        return {}
    return {key.removeprefix(prefix): value for key, value in told.items() if key.startswith(prefix)}


def _add_alpha(result: dict[str, Tensor], name: str, settings: Mapping[str, Any], path: str) -> None:
    """Write the alpha that PEFT keeps in its configuration into the module, so that alpha / rank is PEFT's scaling."""
    if f"{name}.alpha" in result or not settings:
        return
    factors = {key[len(name) + 1 :]: t for key, t in result.items() if key.startswith(f"{name}.")}
    told = settings.get("lora_alpha", settings.get("alpha"))
    patterns = settings.get("alpha_pattern") or {}
    told = next((value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", path)), told)
    rank = adapter_maths.rank(factors)
    if told is None:
        return
    if rank is None:  # LoKr of two whole matrices: Kohya's form has no alpha there, PEFT's has
        result[f"{name}.lokr_w1"] = factors["lokr_w1"] * (float(told) / float(settings["r"]))
        return
    scale = float(told) * (math.sqrt(rank) if settings.get("use_rslora") else 1.0)
    result[f"{name}.alpha"] = torch.tensor(scale)


def to_diffusers(state: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Kohya modules -> diffusers keys that `load_lora_weights` applies exactly.

    diffusers reads alphas of attention layers wrongly when they differ between layers, so alpha / rank is multiplied
    into lora_A and no alpha is written. Raises ValueError for kinds that diffusers cannot load.
    """
    result: dict[str, Tensor] = {}
    for name, factors in state.items():
        kind = adapter_maths.kind(factors)
        if kind not in ("lora", "locon") or "lora_mid.weight" in factors:
            raise ValueError(f"diffusers cannot load {name}, which is of the kind {kind}")
        part, path = keys.kohya_module_path(name)
        prefix = {"unet": "unet", "te": "text_encoder", "te1": "text_encoder", "te2": "text_encoder_2"}[part]
        down, up = factors["lora_down.weight"], factors["lora_up.weight"]
        result[f"{prefix}.{path}.lora_A.weight"] = (down.float() * adapter_maths.scale(factors)).to(down.dtype)
        result[f"{prefix}.{path}.lora_B.weight"] = up
        if "dora_scale" in factors:
            magnitude = factors["dora_scale"]
            if magnitude.shape[0] != up.shape[0] or magnitude.numel() != up.shape[0]:
                raise ValueError(f"diffusers cannot load {name}, whose DoRA magnitude is per input")
            shape = (1, -1, 1, 1) if down.ndim == 4 else (-1,)
            result[f"{prefix}.{path}.lora_magnitude_vector"] = magnitude.reshape(shape)
    return result
