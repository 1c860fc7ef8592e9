"""What a layer is called in this program: its network and its path there, with a dot between them.

`unet.mid_block.attentions.0.proj_in`, `text_encoder.text_model.encoder.layers.0.mlp.fc1`, `text_encoder_2.…`: paths are
those of diffusers and transformers, text encoders' with the `text_model.` level. How Kohya's trainer writes them is
known to `kohya_names`, how other programs do to `dialects` and `writing`. A name that no Stable Diffusion has stays as
its file has it.
"""

from __future__ import annotations

from ..formats.keys import with_level

NETWORKS = ("unet", "text_encoder", "text_encoder_2")


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
