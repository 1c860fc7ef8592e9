"""What a file is, from the names and shapes of its tensors; never from its file name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..adapters import architectures, dialects
from ..formats import controlnet, ldm

Shapes = Mapping[str, tuple[int, ...]]

# What stands at the root of files of other architectures, to say at least what they are.
_STRANGERS = {
    "motion_modules.0.": "an AnimateDiff motion module",
    "model.embed_tokens.weight": "a language model",
    "encoder.block.0.layer.0.": "a T5 text encoder",
    "vision_model.": "a CLIP or another vision model",
    "image_proj.": "an IP-Adapter",
    "lllite_unet": "a ControlNet-LLLite",
    "model.diffusion_model.model.": "a pixel or audio diffusion model",
    "conv_first.weight": "an upscaler",
    "RRDB_trunk.": "an upscaler",
}
_VARIANTS = {4: "base", 8: "instruct-pix2pix", 9: "inpainting"}
FAMILY_NAMES = {
    "sd1": "Stable Diffusion 1",
    "sd2": "Stable Diffusion 2",
    "sdxl": "Stable Diffusion XL",
    "refiner": "Stable Diffusion XL refiner",
    "pocket": "maquette's pocket base",
}


@dataclass(frozen=True)
class Identity:
    """What a file is.

    kind: "model", "unet", "vae", "controlnet", "lora", "embedding" or "unknown". family: "sd1", "sd2", "sdxl",
    "refiner" or None. variant: "base", "inpainting", "instruct-pix2pix", "depth" or "" where it has no meaning.
    layout: "ldm" or "diffusers". prefixes: where parts stand in a single file. note: a name for what is unknown.
    """

    kind: str
    family: str | None = None
    variant: str = ""
    layout: str = ""
    prefixes: tuple[tuple[str, str], ...] = ()
    note: str = ""


def identify(shapes: Shapes) -> Identity:
    """Identity of a flat file (not of a diffusers folder)."""
    prefixes = ldm.find_prefixes(shapes)
    if any(name.startswith(controlnet.PREFIX) for name in shapes) or controlnet.HEAD_LDM in shapes:
        inner = {n.removeprefix(controlnet.PREFIX): s for n, s in shapes.items() if n.startswith(controlnet.PREFIX)}
        return Identity("controlnet", unet_family(inner or shapes), layout="ldm", note=_controlnet_relative(shapes))
    if controlnet.HEAD_DIFFUSERS in shapes:
        return Identity("controlnet", unet_family(shapes), layout="diffusers", note=_controlnet_relative(shapes))
    if "unet" in prefixes:
        return _checkpoint(shapes, prefixes)
    if dialects.is_adapter(shapes):
        return Identity("lora")
    if "input_blocks.0.0.weight" in shapes and "out.2.weight" in shapes:
        return _with_variant("unet", unet_family(shapes), shapes["input_blocks.0.0.weight"], "ldm", (("unet", ""),))
    if {"conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"} <= shapes.keys():
        return _with_variant("unet", unet_family(shapes), shapes["conv_in.weight"], "diffusers")
    if any(name.startswith("model_ema.") for name in shapes):
        return Identity("unknown", note="a checkpoint of averaged (EMA) weights only")
    if "vae" in prefixes:
        return Identity("vae", layout="ldm", prefixes=(("vae", ldm.VAE),))
    if {"decoder.conv_in.weight", "decoder.conv_out.weight"} <= shapes.keys():
        is_ldm = any(name.startswith("decoder.up.") for name in shapes)
        return Identity("vae", layout="ldm" if is_ldm else "diffusers", prefixes=(("vae", ""),) if is_ldm else ())
    if is_embedding(shapes):
        return Identity("embedding", embedding_family(shapes))
    return Identity("unknown", note=_stranger(shapes))


_TOLD = ("label_emb.0.0.weight", "add_embedding.linear_1.weight")
_NUMBER = 256  # channels of each size number


def unet_family(shapes: Shapes) -> str | None:
    """Family of a UNet or ControlNet by its structure, which is the same at any width; names of either layout."""
    if not any(".attn2.to_k.weight" in name for name in shapes):
        return None
    if any(name.startswith(("label_emb.", "add_embedding.")) for name in shapes):
        widths = {shape[1] for name, shape in shapes.items() if name.endswith(".attn2.to_k.weight")}
        context_widths = [shapes[name][1] for name in _TOLD if len(shapes.get(name, ())) == 2]
        # The refiner is told five numbers and its one encoder's pooled vector, which is as wide as that one's tokens.
        alone = widths == {1280} or (bool(context_widths) and {context_widths[0] - 5 * _NUMBER} == widths)
        return "refiner" if alone else "sdxl"
    projections = [shape for name, shape in shapes.items() if name.endswith(".proj_in.weight")]
    return "sd1" if projections and len(projections[0]) == 4 else "sd2"


def _controlnet_relative(shapes: Shapes) -> str:
    """The name of what is built like a ControlNet but is none."""
    if "lora_controlnet" in shapes or any(name.endswith((".up", ".down")) for name in shapes):
        return "a Control-LoRA"
    if any(name.startswith(("task_embedding", "control_add_embedding.")) for name in shapes):
        return "a union ControlNet"
    return ""


def is_embedding(shapes: Shapes) -> bool:
    """A textual inversion: nothing but a few vectors."""
    if not 0 < len(shapes) <= 4 or any(len(shape) not in (1, 2) for shape in shapes.values()):
        return False
    names = set(shapes)
    known = {"emb_params", "clip_l", "clip_g"}
    return bool(
        names & known or any(n.startswith("string_to_param") for n in names) or (len(names) == 1 and _is_token(names))
    )


def _is_token(names: set[str]) -> bool:
    return not any(name.endswith((".weight", ".bias")) for name in names)


def embedding_family(shapes: Shapes) -> str | None:
    """Family that an embedding is for, from its width."""
    if "clip_g" in shapes:
        return "sdxl"
    widths = {shape[-1] for shape in shapes.values()}
    return {768: "sd1", 1024: "sd2"}.get(widths.pop()) if len(widths) == 1 else None


def _checkpoint(shapes: Shapes, prefixes: dict[str, str]) -> Identity:
    prefix = prefixes["unet"]
    unet = {name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)}
    family = unet_family(unet)
    if prefixes.get("text_encoder_2") == ldm.REFINER_OPEN_CLIP:
        family = "refiner"
    kind = "model" if len(prefixes) > 1 else "unet"
    return _with_variant(kind, family, unet["input_blocks.0.0.weight"], "ldm", tuple(prefixes.items()))


def _with_variant(
    kind: str, family: str | None, first: tuple[int, ...], layout: str, prefixes: tuple[tuple[str, str], ...] = ()
) -> Identity:
    channels = first[1] if len(first) == 4 else 0
    variant = "depth" if channels == 5 else _VARIANTS.get(channels, f"{channels} input channels")
    return Identity(kind, family, variant, layout, prefixes)


def _stranger(shapes: Shapes) -> str:
    for mark, called in _STRANGERS.items():
        if any(mark in key for key in shapes):
            return called
    widths = {shape[1] for shape in shapes.values() if len(shape) == 2}
    name = architectures.named([key.rpartition(".")[0] for key in shapes], {}, widths)
    if name is None or name.startswith("a "):
        return name or ""
    return f"{'an' if name[0] in 'AEIO' else 'a'} {name} model"
