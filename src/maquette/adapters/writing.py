"""Adapters under the names of other programs: which kinds each of them carries, and the keys of what it does.

`refusal` says why a target cannot carry a module; `keys_of` writes those that it can. Sources: ComfyUI's
`comfy/lora.py` (names of layers without their prefix), OneTrainer's `convert_sd_lora.py` and `convert_sdxl_lora.py`
("omi" names), diffusers' `save_attn_procs` of 2023.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from ..formats import keys
from . import kohya_names
from . import parts as adapter_parts

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = ("kohya", "diffusers", "peft", "comfyui", "onetrainer", "attn-procs")
PROGRAMS = {
    "kohya": "sd-scripts",
    "diffusers": "diffusers",
    "peft": "PEFT",
    "comfyui": "ComfyUI",
    "onetrainer": "OneTrainer",
    "attn-procs": "diffusers' attention processors",
}
Modules: TypeAlias = "Mapping[str, Mapping[str, Tensor]]"

_PLAIN = {"lora_down.weight", "lora_up.weight", "alpha", "scale"}
_ADDED = {"bias", "bias_indices", "bias_values", "bias_size"}
_COMFY_TEXT = {"sd2": "clip_h"}  # the first text encoder's name; otherwise clip_l
_PROCESSOR = re.compile(r"(.*attn[12])\.(to_[qkv]|to_out)(?:\.0)?")
_1X1 = re.compile(r"attentions\.[0-9]+\.proj_(in|out)")


def refusal(target: str, name: str, factors: Mapping[str, Tensor]) -> str | None:
    """Why the target has no place for a module, as the end of a sentence, or None. PEFT's rules for one kind in a
    folder are `peft_folder`'s.
    """
    kind = adapter_parts.kind(factors)
    called = adapter_parts.DISPLAY.get(kind, kind)
    if target == "kohya":
        return None
    try:
        kohya_names.layer(name)
    except ValueError as error:
        return str(error)
    if target in ("comfyui", "onetrainer"):
        kinds = {"comfyui": ("lora", "locon", "loha", "lokr", "glora", "oft", "boft", "full", "norm"),
                 "onetrainer": ("lora", "locon", "loha")}[target]  # fmt: skip
        beside = _ADDED if target == "comfyui" else _ADDED | {"diff_b", "lora_mid.weight", "hada_t1"}
        if kind not in kinds:
            return f"it does not load {name}, which is of the kind {called}"
        first = next((part for part in sorted(factors) if part in beside), None)
        return f"it has no place for {name}.{first}" if first else None
    if ".embeddings." in name:
        return f"it cannot load {name}, a change of word embeddings"
    if kind not in ("lora", "locon") and not (target == "peft" and kind in ("loha", "lokr")):
        return f"it cannot load {name}, which is of the kind {called}"
    if target == "attn-procs" and (kind == "locon" or not _is_attention(name)):
        return f"it has LoRA on the attention layers of the UNet alone, not on {name}"
    own = {part for part in factors if part.startswith(("hada_", "lokr_"))}
    magnitude = set() if target == "attn-procs" else {"dora_scale"}
    beside = factors.keys() - _PLAIN - own - magnitude - {"lora_mid.weight"}
    if beside:
        return f"it has no place for {name}.{min(beside)}"
    if "dora_scale" in factors and not _per_output(factors):
        return f"it has no DoRA with a magnitude per input, as {name} has; train with dora_axis = 'output' for it"
    return None


def _per_output(factors: Mapping[str, Tensor]) -> bool:
    if "lora_up.weight" not in factors:
        return False
    magnitude, outputs = factors["dora_scale"], factors["lora_up.weight"].shape[0]
    return magnitude.shape[0] == outputs and magnitude.numel() == outputs


def _is_attention(name: str) -> bool:
    network, path = kohya_names.layer(name)
    return network == "unet" and _PROCESSOR.fullmatch(path) is not None


def fitted(modules: Modules, family: str) -> dict[str, dict[str, Tensor]]:
    """The modules in the shapes that every reader of the family takes: the projections of an attention block are 1 × 1
    convolutions in Stable Diffusion 1 and matrices in 2 and XL, whichever the file has; Tucker's form is multiplied
    out, exactly.
    """
    return {name: _fitted(name, dict(factors), family) for name, factors in modules.items()}


def _fitted(name: str, factors: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    if adapter_parts.kind(factors) not in ("lora", "locon"):
        return factors
    if "lora_mid.weight" in factors:
        import torch

        from ..core.dtypes import computed

        mid, down = factors.pop("lora_mid.weight"), factors["lora_down.weight"]
        whole = torch.einsum("rshw,si->rihw", mid.float(), down.float().flatten(1))
        factors["lora_down.weight"] = whole.to(computed(down.dtype))
    convolution = {"sd1": True, "pocket": True, "sd2": False, "sdxl": False}.get(family)
    try:
        path = kohya_names.layer(name)[1]
    except ValueError:
        return factors
    if convolution is not None and _1X1.search(path):
        ones = (1, 1) if convolution else ()
        for part in ("lora_down.weight", "lora_up.weight"):
            factors[part] = factors[part].reshape(*factors[part].shape[:2], *ones)
    return factors


def keys_of(target: str, modules: Modules, family: str) -> dict[str, Tensor]:
    """Keys and tensors as a target reads them. Raises ValueError for a module that it cannot carry, or a name of no
    layer.
    """
    for name, factors in modules.items():
        if target in ("diffusers", "peft") and _changes_nothing(name, factors):
            continue
        why = refusal(target, name, factors)
        if why:
            raise ValueError(why)
    if target in ("diffusers", "peft"):
        return _diffusers(fitted(modules, family))
    if target == "attn-procs":
        return _processors(fitted(modules, family))
    found: dict[str, Tensor] = {}
    for name, factors in modules.items():
        layer = _layer(target, name, family)
        found |= {f"{layer}.{part}": tensor for part, tensor in factors.items()}
    return found


def _changes_nothing(name: str, factors: Mapping[str, Tensor]) -> bool:
    """ComfyUI extracts the tables of words too, with a change of nothing."""
    return ".embeddings." in name and adapter_parts.kind(factors) == "lora" and not factors["lora_up.weight"].any()


def _diffusers(modules: Modules) -> dict[str, Tensor]:
    """`unet.….lora_A.weight`. diffusers reads alphas of attention layers wrongly when they differ between layers, so
    alpha / rank is multiplied into lora_A and no alpha is written.
    """
    found: dict[str, Tensor] = {}
    for name, factors in modules.items():
        if _changes_nothing(name, factors):
            continue
        layer = network_path(name)
        down, up = _strength_in(factors)
        found |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
        if "dora_scale" in factors:
            shape = (1, -1, 1, 1) if down.ndim == 4 else (-1,)
            found[f"{layer}.lora_magnitude_vector"] = factors["dora_scale"].reshape(shape)
    return found


def _strength_in(factors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Down and up with alpha / rank in them, of one type, as the programs' layers need them."""
    from ..core.dtypes import alike, scaled

    down, up = alike(scaled(factors["lora_down.weight"], adapter_parts.scale(factors)), factors["lora_up.weight"])
    return down, up


def network_path(name: str) -> str:
    """`unet.`, `text_encoder.` or `text_encoder_2.` and the layer's path. Raises ValueError for names of no layer."""
    return ".".join(kohya_names.layer(name))


def _layer(target: str, name: str, family: str) -> str:
    network, path = kohya_names.layer(name)
    if network == "unet":
        layout = keys.SDXL_LAYOUT if family == "sdxl" else keys.SD_LAYOUT
        prefix = "diffusion_model" if target == "comfyui" else "unet"
        return f"{prefix}.{keys.unet_to_ldm(path, layout)}"
    encoder = "clip_g" if network == "text_encoder_2" else "clip_l"
    if target == "onetrainer":
        return f"{encoder}.{path}"
    return f"text_encoders.{_COMFY_TEXT.get(family, encoder)}.transformer.{path}"


def _processors(modules: Modules) -> dict[str, Tensor]:
    """`….attn1.processor.to_q_lora.down.weight` of UNet layers; alpha / rank is multiplied into it."""
    found: dict[str, Tensor] = {}
    for name, factors in modules.items():
        match = _PROCESSOR.fullmatch(kohya_names.layer(name)[1])
        assert match is not None
        layer = f"{match[1]}.processor.{match[2]}_lora"
        found[f"{layer}.down.weight"], found[f"{layer}.up.weight"] = _strength_in(factors)
    return found
