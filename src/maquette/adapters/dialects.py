"""Adapter files of other programs, as keys: which layer and which part of its change every key names.

Understood are the names of Kohya and LyCORIS, PEFT, diffusers (new and old), ComfyUI and OneTrainer; `writing` writes
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..formats import keys
from . import kohya_names
from . import parts as adapter_parts

if TYPE_CHECKING:
    from torch import Tensor

_FACTORS = {
    "lora_A.weight": "lora_down.weight",
    "lora_B.weight": "lora_up.weight",
    "lora_B.bias": "lora_up.bias",
    "lora_A.default.weight": "lora_down.weight",
    "lora_B.default.weight": "lora_up.weight",
    "lora.down.weight": "lora_down.weight",
    "lora.up.weight": "lora_up.weight",
    "lora_linear_layer.down.weight": "lora_down.weight",
    "lora_linear_layer.up.weight": "lora_up.weight",
    "lora_magnitude_vector": "dora_scale",
    "lora_magnitude_vector.weight": "dora_scale",
    "lora_magnitude_vector.default.weight": "dora_scale",
    **{part: part for part in sorted(adapter_parts.KNOWN_PARTS)},
}
# Parts of methods that are known by name only.
_REFUSED = {
    "oft_R": "OFT in PEFT's form",
    "oft_R.weight": "OFT in PEFT's form",
    "boft_R": "BOFT in PEFT's form",
    "boft_s": "BOFT in PEFT's form",
    "ia3_l": "IA3 in PEFT's form",
    "vera_lambda_b": "VeRA",
    "vera_lambda_d": "VeRA",
    "hra_u": "HRA",
    "lambda_layer": "T-LoRA",
    "q_layer.weight": "T-LoRA",
    "p_layer.weight": "T-LoRA",
    "lora_embedding_A": "LoRA on word embeddings",
    "lora_embedding_B": "LoRA on word embeddings",
}
_SUFFIX = re.compile(
    r"\.(" + "|".join(re.escape(p) for p in sorted({**_FACTORS, **_REFUSED}, key=len, reverse=True)) + r")$"
)
_OLD_PROCESSOR = re.compile(
    r"\.processor\.(to_[qkv]|to_out|qkv|proj)_lora([12]?)\.(down|up)\.weight$"
)  # the last two: Flux
_JOINED = re.compile(r"(?:lora|oft)_(unet|te1|te2|te)_(.+)")
_DOTTED_PREFIXES = {
    "base_model.model.": "",
    "model.diffusion_model.": "unet",
    "diffusion_model.": "unet",
    "unet.": "unet",
    "lora_unet.": "unet",
    "text_encoders.clip_l.transformer.": "te",
    "text_encoders.clip_h.transformer.": "te",
    "text_encoders.clip_g.transformer.": "te2",
    "text_encoder_2.": "te2",
    "text_encoder.": "te",
    "clip_l.": "te",
    "clip_g.": "te2",
    "lora_te.": "te",
    "lora_te1.": "te1",
    "lora_te2.": "te2",
}


@dataclass(frozen=True)
class Layer:
    """A layer that an adapter changes.

    part: "unet", "te" (the first or only text encoder), "te1" (so named, which SDXL's adapters mostly are) or "te2".
    path: its diffusers or transformers path, None for what no Stable Diffusion has. written: its path as the file has
    it, without the part. by: whose names these are. ldm: whether it has its LDM name.
    """

    part: str
    path: str | None
    written: str
    by: str
    ldm: bool = False


@dataclass
class Module:
    """A layer, its name in the file, and Kohya's part name -> tensor."""

    layer: Layer
    name: str
    factors: dict[str, Tensor]

    @property
    def layer_name(self) -> str:
        """The layer's one name (`module_names`); one behind Kohya's prefix that is no layer is kept."""
        if self.layer.path is None:
            return re.sub(r"^oft_unet_", "lora_unet_", self.name)
        return f"{kohya_names.NETWORKS[self.layer.part]}.{self.layer.path}"


def read(tensors: Mapping[str, Tensor]) -> tuple[list[Module], list[str]]:
    """Modules of a file in its order, and the keys that are no part of one. Raises ValueError for methods that are
    known by name only, and where two keys name the same part.
    """
    found: dict[str, dict[str, tuple[str, Tensor]]] = {}  # module -> Kohya part -> key, tensor
    strange = []
    for key, tensor in tensors.items():
        name, part = split(key)
        if part in _REFUSED:
            raise ValueError(f"it is {_REFUSED[part]}, which maquette does not apply")
        if part == "":
            strange.append(key)
            continue
        parts = found.setdefault(name, {})
        if _FACTORS[part] in parts:
            raise ValueError(f"{parts[_FACTORS[part]][0][:160]} and {key[:160]} are the same part of one layer")
        parts[_FACTORS[part]] = (key, _column(tensor) if part.startswith("lora_magnitude") else tensor)
    modules = []
    for name, parts in found.items():
        if adapter_parts.TELLING_PARTS.isdisjoint(parts):
            strange += [key for key, _ in parts.values()]
            continue
        layer = layer_of(name, next(iter(parts.values()))[0])
        modules.append(Module(layer, name, {part: tensor for part, (_, tensor) in parts.items()}))
    return modules, strange


def split(key: str) -> tuple[str, str]:
    """(module, part as the file calls it) of a key; the part is "" for what is none."""
    key = _OLD_PROCESSOR.sub(lambda m: f".{'to_out.0' if m[1] == 'to_out' else m[1] + m[2]}.lora.{m[3]}.weight", key)
    match = _SUFFIX.search(key)
    return (key, "") if match is None else (key[: match.start()], match[1])


def is_adapter(names: Iterable[str]) -> bool:
    """Whether a file's names are those of an adapter: one that tells is enough."""
    parts = (split(name)[1] for name in names)
    return any(part in _REFUSED or _FACTORS.get(part) in adapter_parts.TELLING_PARTS for part in parts)


def layer_of(name: str, key: str = "") -> Layer:
    """The layer that a module's name means. key: one of the module's keys, which shows who wrote it."""
    joined = _JOINED.fullmatch(name)
    if joined:
        return _layer(joined[1], kohya_names.dotted(joined[2]), "Kohya")
    if name.startswith("lycoris_"):
        rest = name.removeprefix("lycoris_")
        return _layer("te" if rest.startswith("text_model_") else "unet", kohya_names.dotted(rest), "LyCORIS")
    part, path, by = "", name, _writer(key)
    while prefix := next((p for p in _DOTTED_PREFIXES if path.startswith(p)), None):
        part, path = _DOTTED_PREFIXES[prefix] or part, path.removeprefix(prefix)
        by = {"diffusion_model.": "ComfyUI", "text_encoders.": "ComfyUI"}.get(re.sub(r"\..*", ".", prefix), by)
    if not part:
        part = "te" if keys.text_layer(path) else "unet"
    layer = _layer(part, path, by)
    return replace(layer, by="LDM paths") if layer.ldm and by != "ComfyUI" else layer


def _layer(part: str, path: str, by: str) -> Layer:
    known = keys.unet_layer(path) if part == "unet" else keys.text_layer(path)
    return Layer(part, known, path, by, part == "unet" and known is not None and known != path)


def _writer(key: str) -> str:
    """Whose names a dotted key has."""
    if ".processor." in key:
        return "diffusers' attention processors of 2023"
    if ".lora.down." in key or ".lora.up." in key or ".lora_linear_layer." in key:
        return "diffusers of 2023"
    if key.startswith("base_model.model."):
        return "PEFT"
    if ".lora_A." in key or ".lora_B." in key or ".lora_magnitude_vector" in key:
        return "diffusers and PEFT"
    return "Kohya's parts with dotted names"


def _column(magnitude: Tensor) -> Tensor:
    """PEFT's magnitude, (out,) or (1, out, 1, 1) -> Kohya's (out, 1[, 1, 1])."""
    return magnitude.reshape(-1, *([1] * max(1, magnitude.ndim - 1)))
