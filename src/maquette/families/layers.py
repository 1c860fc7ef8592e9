"""The layers of a base model under the names that adapters give them, from its tensors' names alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..adapters.kohya_names import kohya_module_name
from ..formats import ldm
from ..formats.keys import unet_layer

Layer = tuple[str, str]  # part ("unet", "text_encoder", "text_encoder_2") and diffusers or transformers path
_TEXT = {"text_encoder": ("te", "te1"), "text_encoder_2": ("te2",)}


def kohya_layers(family: str, names: Mapping[str, Iterable[str]], every_name: bool = False) -> dict[str, Layer]:
    """Kohya module name -> (part, path of the layer), for each layer with a weight.

    family: "sd1", "sd2", "sdxl" or "pocket". names: part -> names of its tensors (`conv_in.weight`, …), as
    `checkpoint.Checkpoint.parts` has them; a VAE is left out. every_name: the UNet under its diffusers and its LDM
    names, and the first text encoder as `te` and `te1`, for what an adapter was made for does not always show; else
    under the family's own names alone.
    """
    found: dict[str, Layer] = {}
    for part, tensors in names.items():
        paths = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
        if part == "unet":
            found |= _unet(family, paths, every_name)
        elif part in _TEXT:
            prefixes = _TEXT[part] if every_name else ("te1" if family == "sdxl" else "te",)
            for prefix in prefixes if part == "text_encoder" else _TEXT[part]:
                found |= {kohya_module_name(family, prefix, path): (part, path) for path in paths}
    return found


def _unet(family: str, paths: list[str], every_name: bool) -> dict[str, Layer]:
    usual = ldm.unet_layout(f"{path}.weight" for path in paths).layers_per_block == 2  # what LDM names count on
    naming = [family, *(["sd1", *(["sdxl"] if usual else [])] if every_name else [])]
    return {
        kohya_module_name(one, "unet", path): ("unet", path)
        for one in naming
        for path in paths
        if one == family or unet_layer(path)  # another family's network has no name in LDM's layout
    }
