"""Which family of base models an adapter is for, as far as its layers and its metadata tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import parts as adapter_parts
from .dialects import Module

_CROSS_ATTENTION_WIDTH = {768: "sd1", 1024: "sd2", 1280: "refiner", 2048: "sdxl"}
_FAMILY_OF_VERSION = (("sdxl", "sdxl"), ("sd_v2", "sd2"), ("sd_v1", "sd1"))


def family_of(modules: Sequence[Module], metadata: Mapping[str, str]) -> str:
    """Which base an adapter is for: pocket says so itself; else the text width of cross-attention, layers that only one
    family has, the metadata, and last the names that only SDXL's trainers give.
    """
    version = metadata.get("ss_base_model_version", "")
    if version.startswith("maquette_pocket"):
        return "pocket"
    by_version = next((family for prefix, family in _FAMILY_OF_VERSION if version.startswith(prefix)), None)
    width = _text_width(modules)
    if width is not None and width in _CROSS_ATTENTION_WIDTH:
        return _CROSS_ATTENTION_WIDTH[width]
    by_layers = _family_by_layers(modules)
    if by_layers == "sdxl" or (by_layers and by_version in (None, "sdxl")):
        return by_layers
    if by_version is not None:
        return by_version
    if any(module.layer.part == "te1" or module.layer.ldm for module in modules):
        return "sdxl"
    return "unknown"


def _text_width(modules: Sequence[Module]) -> int | None:
    for module in modules:
        path = module.layer.path
        if path and module.layer.part == "unet" and path.endswith(("attn2.to_k", "attn2.to_v")):
            width = adapter_parts.in_features(module.factors)
            if width is not None:
                return width
    return None


def _family_by_layers(modules: Sequence[Module]) -> str | None:
    """From blocks that only SDXL or only the smaller ones have; pocket has one of SDXL's too, not at its width."""
    for module in modules:
        part, path = module.layer.part, module.layer.path or ""
        deep = ".transformer_blocks." in path and ".transformer_blocks.0." not in path
        if part == "te2" or deep or path.startswith("add_embedding.") or _wide_at(module, "up_blocks.0.attentions."):
            return "sdxl"
    for module in modules:
        part, path = module.layer.part, module.layer.path or ""
        if part == "te" and path.endswith(("q_proj", "k_proj", "v_proj")):
            return {768: "sd1", 1024: "sd2"}.get(adapter_parts.in_features(module.factors) or 0)
        if path.startswith(("down_blocks.0.attentions.", "down_blocks.3.")):
            return "sd1"  # SD2 has them too; which of both does not show without its text width
    return None


def _wide_at(module: Module, block: str) -> bool:
    inputs = adapter_parts.in_features(module.factors)
    return (module.layer.path or "").startswith(block) and inputs is not None and inputs % 1280 == 0
