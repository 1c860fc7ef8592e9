"""The single-file layout (LDM, as Stability's and A1111's .safetensors and .ckpt): tensors in, tensors out, by rule.

A single file holds UNet, VAE and text encoder(s) under prefixes and under names of their own; here they become parts
with diffusers and transformers names, and the reverse. Nothing is lost: what belongs to no part is kept under its own
name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import keys

if TYPE_CHECKING:
    from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
CLIP = "cond_stage_model.transformer.text_model."
CLIP_FLAT = "cond_stage_model.transformer."  # written by tools that forgot the level; programs accept it, so it is kept
OPEN_CLIP = "cond_stage_model.model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.text_model.", "conditioner.embedders.1.model."
_SD2_UNUSED_LAYER = 23  # of 24: SD2 was trained on the layer before the last
REFINER_OPEN_CLIP = "conditioner.embedders.0.model."

Written = dict[str, tuple[tuple[str, ...], str]]  # name in the file -> the part's tensors that stand there, and how

_VAE_RESNET = {"nin_shortcut": "conv_shortcut"}
_VAE_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_VAE_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
    "attn.out_proj": "self_attn.out_proj",
}
_OPEN_CLIP_OUTER = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}


@dataclass
class SingleFile:
    """A single file taken apart.

    parts: "unet", "vae", "text_encoder", "text_encoder_2" -> tensors under diffusers or transformers names (CLIP
    without the `text_model.` level). prefixes: where each part stood in the file. extras: all other tensors, under
    the file's names.
    """

    parts: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    prefixes: dict[str, str] = field(default_factory=dict)
    extras: dict[str, Tensor] = field(default_factory=dict)


def find_prefixes(names: Iterable[str]) -> dict[str, str]:
    """Which parts a single file has, and under which prefix each stands."""
    names = set(names)
    heads = {
        ("unet", UNET): "input_blocks.0.0.weight",
        ("vae", VAE): "decoder.conv_in.weight",
        ("text_encoder", CLIP): "embeddings.token_embedding.weight",
        ("text_encoder", CLIP_FLAT): "embeddings.token_embedding.weight",
        ("text_encoder", OPEN_CLIP): "token_embedding.weight",
        ("text_encoder", XL_CLIP): "embeddings.token_embedding.weight",
        ("text_encoder_2", XL_OPEN_CLIP): "token_embedding.weight",
        ("text_encoder_2", REFINER_OPEN_CLIP): "token_embedding.weight",
    }
    found: dict[str, str] = {}
    for (part, prefix), head in heads.items():
        if prefix + head in names:
            found.setdefault(part, prefix)
    return found


def split(tensors: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> SingleFile:
    """Take a single file apart. Views of the given tensors: nothing is copied.

    SD2's text encoder loses its last layer, which that model never runs (it is kept among the extras), as in every
    diffusers folder of SD2.
    """
    result = SingleFile(prefixes=dict(prefixes))
    by_length = sorted(prefixes.items(), key=lambda item: -len(item[1]))
    own: dict[str, dict[str, Tensor]] = {part: {} for part in prefixes}
    for name, tensor in tensors.items():
        part = next((part for part, prefix in by_length if name.startswith(prefix)), None)
        if part is None:
            result.extras[name] = tensor
        else:
            own[part][name[len(prefixes[part]) :]] = tensor
    for part, named in own.items():
        translated, left = _PART_READERS[_kind(part, prefixes[part])](named)
        result.parts[part] = translated
        result.extras |= {prefixes[part] + name: tensor for name, tensor in left.items()}
    return result


def join(file: SingleFile) -> dict[str, Tensor]:
    """Put the parts together again under the names of a single file. Inverse of `split`."""
    found = {
        name: place.joined([file.parts[place.part][own] for own in place.names])
        for name, place in places(file.parts, file.prefixes).items()
    }
    return dict(file.extras) | found


@dataclass(frozen=True)
class Place:
    """What a single file holds under one name: tensors of a part, one after the other in rows, and what differs.

    form: "" for the same numbers, "transposed", or "kernel" for a matrix that is stored as a 1 x 1 convolution.
    """

    part: str
    names: tuple[str, ...]
    form: str = ""

    def joined(self, tensors: Sequence[Tensor]) -> Tensor:
        """The file's tensor from the part's; a view where it is one tensor alone."""
        import torch

        tensor = tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
        if self.form == "transposed":
            return tensor.T
        return tensor[:, :, None, None] if self.form == "kernel" else tensor

    def shape(self, shapes: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The shape of `joined` from those of the part's tensors, of which there may be no numbers."""
        whole = tuple(shapes[0])
        if len(shapes) > 1:
            whole = (sum(shape[0] for shape in shapes), *whole[1:])
        if self.form == "transposed":
            return whole[::-1]
        return (*whole, 1, 1) if self.form == "kernel" else whole


def places(parts: Mapping[str, Mapping[str, Tensor]], prefixes: Mapping[str, str]) -> dict[str, Place]:
    """Name in the single file -> which tensors of the parts stand there. Nothing but names and shapes is looked at."""
    found = {}
    for part, tensors in parts.items():
        for name, (own, form) in _PART_WRITERS[_kind(part, prefixes[part])](tensors).items():
            found[prefixes[part] + name] = Place(part, own, form)
    return found


def standard_prefixes(family: str, parts: Iterable[str]) -> dict[str, str]:
    """The prefixes under which a family's parts usually stand. family: "sd1", "sd2", "sdxl" or "pocket"."""
    encoder = {"sd2": OPEN_CLIP, "sdxl": XL_CLIP}.get(family, CLIP)
    table = {"unet": UNET, "vae": VAE, "text_encoder": encoder, "text_encoder_2": XL_OPEN_CLIP}
    return {part: table[part] for part in parts}


def unet_layers_per_block(names: Iterable[str]) -> int:
    """Residual layers per down block of an LDM UNet (names without prefix), from where the first downsampler stands."""
    first = min((int(m[1]) for name in names if (m := re.match(r"input_blocks\.(\d+)\.0\.op\.", name))), default=3)
    return first - 1


def unet_layout(names: Iterable[str]) -> keys.UNetLayout:
    """What the LDM numbering depends on, from diffusers names."""
    matches = [m for name in names if (m := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.", name))]
    layers = 1 + max((int(m[4]) for m in matches if m[1] == "down" and m[3] == "resnets"), default=1)
    attention = frozenset(int(m[2]) for m in matches if m[1] == "up" and m[3] == "attentions")
    return keys.UNetLayout(layers, attention)


def ema_unet(file: SingleFile) -> dict[str, Tensor] | None:
    """The averaged UNet weights (`model_ema.`), under diffusers names, or None when the file has none."""
    found = {}
    layout = unet_layout(file.parts.get("unet", {}))
    for name in file.parts.get("unet", {}):
        key = "model_ema." + ("diffusion_model." + keys.unet_to_ldm(name, layout)).replace(".", "")
        if key not in file.extras:
            return None
        found[name] = file.extras[key]
    return found or None


def vae_from_ldm(name: str, blocks: int) -> str:
    """VAE parameter name, LDM -> diffusers. blocks: number of resolution levels (the decoder counts them backwards)."""
    name = re.sub(r"^(encoder|decoder)\.norm_out\.", r"\1.conv_norm_out.", name)
    if match := re.match(r"(encoder|decoder)\.mid\.(block|attn)_(\d)\.(.+)", name):
        kind, table = ("resnets", _VAE_RESNET) if match[2] == "block" else ("attentions", _VAE_ATTENTION)
        return f"{match[1]}.mid_block.{kind}.{int(match[3]) - 1}.{_rename(match[4], table)}"
    if match := re.match(r"(encoder\.down|decoder\.up)\.(\d+)\.(.+)", name):
        up = match[1] == "decoder.up"
        block = blocks - 1 - int(match[2]) if up else int(match[2])
        rest = re.sub(r"^(down|up)sample\.conv", r"\1samplers.0.conv", match[3])
        rest = re.sub(r"^block\.(\d+)\.(.+)", lambda m: f"resnets.{m[1]}.{_rename(m[2], _VAE_RESNET)}", rest)
        return f"{match[1]}_blocks.{block}.{rest}"
    return name


def vae_to_ldm(name: str, blocks: int) -> str:
    """VAE parameter name, diffusers -> LDM. Inverse of `vae_from_ldm`."""
    name = name.replace(".conv_norm_out.", ".norm_out.")
    if match := re.match(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d)\.(.+)", name):
        kind, table = ("block", _VAE_RESNET) if match[2] == "resnets" else ("attn", _VAE_ATTENTION)
        return f"{match[1]}.mid.{kind}_{int(match[3]) + 1}.{_rename(match[4], _inverse(table))}"
    if match := re.match(r"(encoder\.down|decoder\.up)_blocks\.(\d+)\.(.+)", name):
        up = match[1] == "decoder.up"
        block = blocks - 1 - int(match[2]) if up else int(match[2])
        rest = re.sub(r"^(down|up)samplers\.0\.conv", r"\1sample.conv", match[3])
        rest = re.sub(r"^resnets\.(\d+)\.(.+)", lambda m: f"block.{m[1]}.{_rename(m[2], _inverse(_VAE_RESNET))}", rest)
        return f"{match[1]}.{block}.{rest}"
    return name


def vae_modern_name(name: str) -> str:
    """Diffusers VAE name with the attention names of today: old folders say query, key, value, proj_attn."""
    match = re.match(r"(.+\.attentions\.\d+)\.(.+)", name)
    return f"{match[1]}.{_rename(match[2], _VAE_OLD_ATTENTION)}" if match else name


def open_clip_from_ldm(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """OpenCLIP text tower -> transformers CLIP names (fused attention projections split), and what has no place there.

    text_projection, stored for x @ P, becomes `text_projection.weight`, stored for a linear layer.
    """
    result, left = {}, {}
    for name, tensor in named.items():
        match = re.match(r"transformer\.resblocks\.(\d+)\.(.+)", name)
        if name in _OPEN_CLIP_OUTER:
            result[_OPEN_CLIP_OUTER[name]] = tensor
        elif name == "text_projection":
            result["text_projection.weight"] = tensor.T
        elif match and (fused := re.fullmatch(r"attn\.in_proj_(weight|bias)", match[2])):
            for letter, third in zip("qkv", tensor.chunk(3), strict=True):
                result[f"encoder.layers.{match[1]}.self_attn.{letter}_proj.{fused[1]}"] = third
        elif match:
            result[f"encoder.layers.{match[1]}.{_rename(match[2], _OPEN_CLIP_LAYER)}"] = tensor
        else:
            left[name] = tensor
    return result, left


def open_clip_to_ldm(tensors: Mapping[str, Tensor]) -> Written:
    """transformers CLIP names -> OpenCLIP text tower, projections fused again. Inverse of `open_clip_from_ldm`."""
    result: Written = {}
    for name in tensors:
        match = re.match(r"encoder\.layers\.(\d+)\.(.+)", name)
        if name in _OPEN_CLIP_OUTER.values():
            result[_inverse(_OPEN_CLIP_OUTER)[name]] = ((name,), "")
        elif name == "text_projection.weight":
            result["text_projection"] = ((name,), "transposed")
        elif match and (single := re.fullmatch(r"self_attn\.([qkv])_proj\.(weight|bias)", match[2])):
            if single[1] == "q":
                thirds = tuple(name.replace("q_proj", f"{letter}_proj") for letter in "qkv")
                result[f"transformer.resblocks.{match[1]}.attn.in_proj_{single[2]}"] = (thirds, "")
        elif match:
            renamed = _rename(match[2], _inverse(_OPEN_CLIP_LAYER))
            result[f"transformer.resblocks.{match[1]}.{renamed}"] = ((name,), "")
        else:
            raise ValueError(f"not a text encoder tensor: {name}")
    return result


def _rename(name: str, table: Mapping[str, str]) -> str:
    for old, new in table.items():
        if name == old or name.startswith(old + "."):
            return new + name[len(old) :]
    return name


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {new: old for old, new in table.items()}


def _kind(part: str, prefix: str) -> str:
    if part in ("unet", "vae"):
        return part
    return {OPEN_CLIP: "sd2_open_clip", XL_OPEN_CLIP: "open_clip", REFINER_OPEN_CLIP: "open_clip"}.get(prefix, "clip")


def _read_unet(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    layers = unet_layers_per_block(named)
    return {keys.unet_from_ldm(name, layers): tensor for name, tensor in named.items()}, {}


def _write_unet(tensors: Mapping[str, Tensor]) -> Written:
    layout = unet_layout(tensors)
    return {keys.unet_to_ldm(name, layout): ((name,), "") for name in tensors}


def _vae_blocks(names: Iterable[str]) -> int:
    return 1 + max(
        (int(m[1]) for name in names if (m := re.match(r"decoder\.up(?:_blocks)?\.(\d+)\.", name))), default=3
    )


def _is_vae_attention_weight(name: str) -> bool:
    return re.search(r"mid(_block)?\.attn?[^.]*.*\.(q|k|v|proj_out|to_[qkv]|to_out\.0)\.weight$", name) is not None


def _read_vae(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    blocks = _vae_blocks(named)
    kept = {
        name: t for name, t in named.items() if name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant"))
    }
    left = {name: tensor for name, tensor in named.items() if name not in kept}  # the trainer's loss network
    result = {}
    for name, tensor in kept.items():
        flat = tensor[:, :, 0, 0] if _is_vae_attention_weight(name) and tensor.ndim == 4 else tensor
        result[vae_from_ldm(name, blocks)] = flat
    return result, left


def _write_vae(tensors: Mapping[str, Tensor]) -> Written:
    blocks = _vae_blocks(tensors)
    return {
        vae_to_ldm(name, blocks): ((name,), "kernel" if _is_vae_attention_weight(name) and tensor.ndim == 2 else "")
        for name, tensor in tensors.items()
    }


def _read_clip(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    left = {name: tensor for name, tensor in named.items() if name.endswith("position_ids")}
    return {name: tensor for name, tensor in named.items() if name not in left}, left


def _write_clip(tensors: Mapping[str, Tensor]) -> Written:
    return {name: ((name,), "") for name in tensors}


def _read_sd2_open_clip(named: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    unused = (f"transformer.resblocks.{_SD2_UNUSED_LAYER}.", "text_projection", "logit_scale")
    left = {name: tensor for name, tensor in named.items() if name.startswith(unused)}
    result, rest = open_clip_from_ldm({name: tensor for name, tensor in named.items() if name not in left})
    return result, left | rest


_PART_READERS = {
    "unet": _read_unet,
    "vae": _read_vae,
    "clip": _read_clip,
    "open_clip": open_clip_from_ldm,
    "sd2_open_clip": _read_sd2_open_clip,
}
_PART_WRITERS = {
    "unet": _write_unet,
    "vae": _write_vae,
    "clip": _write_clip,
    "open_clip": open_clip_to_ldm,
    "sd2_open_clip": open_clip_to_ldm,
}
