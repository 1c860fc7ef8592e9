"""The layers of a base model under the names that adapters give them, from its tensors' names alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..adapters import kohya_names
from ..adapters.module_names import NETWORKS, module_name
from ..formats.keys import text_layer, unet_layer

Layer = tuple[str, str]  # part ("unet", "text_encoder", "text_encoder_2") and diffusers or transformers path


def named_layers(family: str, names: Mapping[str, Iterable[str]], foreign: bool = False) -> dict[str, Layer]:
    """Name of a module (`adapters.module_names`) -> (part, path of the layer), for each layer with a weight.

    family: "sd1", "sd2", "sdxl", "pocket", … names: part -> names of its tensors (`conv_in.weight`, …), as
    `checkpoint.Checkpoint.parts` has them; a VAE is left out. foreign: layers that no Stable Diffusion has also under
    the name that they have in files, whose adapters keep it.
    """
    found: dict[str, Layer] = {}
    for part, tensors in names.items():
        if part not in NETWORKS:
            continue
        for path in (name.removesuffix(".weight") for name in tensors if name.endswith(".weight")):
            name = module_name(part, path)
            found[name] = part, path
            known = unet_layer(path) if part == "unet" else text_layer(path)
            if foreign and known is None:
                found[kohya_names.written("", name)] = part, path
    return found
