"""What a layer is called in this program: its network and its path there, with a dot between them.

`unet.mid_block.attentions.0.proj_in`, `text_encoder.text_model.encoder.layers.0.mlp.fc1`, `text_encoder_2.…`: paths are
those of diffusers and transformers, text encoders' with the `text_model.` level. How Kohya's trainer writes them is
known to `kohya_names`, how other programs do to `dialects` and `writing`. A name that no Stable Diffusion has stays as
its file has it.
"""

from __future__ import annotations

import math
import re

from ..formats.keys import with_level

NETWORKS = ("unet", "text_encoder", "text_encoder_2")
_KERNEL_3X3 = re.compile(r"(.*resnets[._]\d+[._]conv[12]|.*samplers[._]0[._]conv|(unet\.|lora_unet_)conv_(in|out))")
_KERNEL_1X1 = re.compile(r".*resnets[._]\d+[._]conv_shortcut")
_PROJECTION = re.compile(r".*attentions[._]\d+[._]proj_(in|out)")


def module_name(network: str, path: str) -> str:
    """The name of a layer. network: of NETWORKS; path: with or without the `text_model.` level."""
    return f"{network}.{path if network == 'unet' else with_level(path.removeprefix('text_model.'))}"


def network_and_path(name: str) -> tuple[str, str] | None:
    """Inverse of `module_name`; None for a name that stayed as its file has it."""
    network, _, path = name.partition(".")
    return (network, path) if network in NETWORKS and path else None


def of_text_encoder(name: str) -> bool:
    """Whether a module is of a text encoder."""
    return name.startswith(("text_encoder", "lora_te"))


def kernel(name: str, family: str) -> tuple[int, ...]:
    """The kernel of a convolution by its name, for changes that do not show it; () for a matrix, and where the family
    is not known that decides.
    """
    if _KERNEL_3X3.fullmatch(name):
        return (3, 3)
    is_1x1 = _KERNEL_1X1.fullmatch(name) or (family in ("sd1", "pocket") and _PROJECTION.fullmatch(name))
    return (1, 1) if is_1x1 else ()


def unflattened(shape: tuple[int, ...], name: str, family: str) -> tuple[int, ...]:
    """(out, in·h·w) as (out, in, h, w) for a convolution; every other shape as it is."""
    own = kernel(name, family)
    fits = len(shape) == 2 and own and shape[1] % math.prod(own) == 0
    return (shape[0], shape[1] // math.prod(own), *own) if fits else shape
