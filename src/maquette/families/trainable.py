"""Which layers of a base can be trained, and what they are called."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import nn

from ..adapters.kohya_names import named, written
from ..errors import MaquetteError
from . import full_size
from .base import BaseModel
from .sd.spec import TARGETS, TEXT_TARGETS

_SDXL_RESNET_LINEAR = r"resnets\.\d+\.(time_emb_proj|conv_shortcut)"


def targets(
    base: BaseModel, which: Sequence[str] = ("attention", "feed_forward"), text_encoder: bool = False
) -> dict[str, tuple[nn.Module, str]]:
    """Name (`adapters.module_names`) -> (parent module, attribute name) of each layer to adapt, in the network's order.

    which: groups out of `base.targets`; text_encoder: also every attention and MLP layer of the text encoder(s).
    Raises MaquetteError for an unknown group.
    """
    unknown = [group for group in which if group not in base.targets]
    if unknown:
        raise MaquetteError(
            f"there is no group of layers called {unknown[0]!r}; choose from {', '.join(base.targets)}."
        )
    patterns = [pattern for group in which for pattern in base.targets[group]]
    found = {}
    for path, parent, attribute in _matches(base.network, patterns):
        found[named("unet", path)] = (parent, attribute)
    if text_encoder:
        for part, encoder in zip(base.spec.text_parts, base.text_encoders, strict=True):
            for path, parent, attribute in _matches(encoder, TEXT_TARGETS):
                found[named(part, path)] = (parent, attribute)
    return found


def kohya_names(family: str, conv: bool = False, rank: int = 8) -> dict[str, tuple[int, ...]]:
    """Every key that a LoRA file of Kohya's trainer can have for a family, and its shape, at full size; text encoders
    too.

    family: "sd1", "sd2", "sdxl" or "pocket". conv: also the convolutions of residual blocks and samplers (LoCon).
    Without it SDXL has the linear layers and 1x1 convolutions of its residual blocks all the same, as sd-scripts may
    write them. Nothing is loaded: the networks are on the meta device. Raises MaquetteError for an unknown family.
    """
    networks = full_size.networks(family)
    patterns = [pattern for group in ("attention", "feed_forward") for pattern in TARGETS[group]]
    if conv:
        patterns += TARGETS["conv"]
    elif family == "sdxl":
        patterns.append(_SDXL_RESNET_LINEAR)
    names: dict[str, tuple[int, ...]] = {}
    for part, network in networks.items():
        if part == "vae":
            continue
        for path, parent, attribute in _matches(network, patterns if part == "unet" else TEXT_TARGETS):
            name = written(family, named(part, path))
            names |= _lora_shapes(name, parent.get_submodule(attribute), rank)
    return names


def _lora_shapes(name: str, layer: nn.Module, rank: int) -> dict[str, tuple[int, ...]]:
    outer, inner, *kernel = tuple(layer.get_parameter("weight").shape)
    ones = (1,) * len(kernel)
    return {
        f"{name}.alpha": (),
        f"{name}.lora_down.weight": (rank, inner, *kernel),
        f"{name}.lora_up.weight": (outer, rank, *ones),
    }


def _matches(root: nn.Module, patterns: Sequence[str]) -> Iterator[tuple[str, nn.Module, str]]:
    expression = re.compile("|".join(rf"(?:.*\.)?(?:{pattern})" for pattern in patterns) or r"(?!)")
    for path, module in root.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and expression.fullmatch(path):
            parent_path, _, attribute = path.rpartition(".")
            yield path, root.get_submodule(parent_path), attribute
