"""The full-size networks of each family, on the meta device: names and shapes without a byte of weights."""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import nn

from ..errors import MaquetteError
from . import folders, modules
from .pocket.spec import WEIGHTS

_UNETS: dict[str, dict[str, Any]] = {
    "sd1": {"cross_attention_dim": 768, "attention_head_dim": 8},
    "sd2": {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True},
    "sdxl": {
        "block_out_channels": (320, 640, 1280),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
}
_CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
_TEXTS: dict[str, dict[str, dict[str, Any]]] = {
    "sd1": {"te": _CLIP_L},
    "sd2": {"te": _CLIP_H},
    "sdxl": {"te1": _CLIP_L, "te2": _CLIP_G | {"projection_dim": 1280}},
}
_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}


@cache
def networks(family: str) -> dict[str, nn.Module]:
    """ "unet", "vae" and the text encoders ("te", or "te1" and "te2") of a family, on the meta device. Do not change
    them.
    """
    if family == "pocket":
        configs = {part: folders.read_json(WEIGHTS / part / "config.json") for part in ("unet", "vae", "text_encoder")}
        text = {"te": modules.build_text_encoder(configs["text_encoder"])}
        return {"unet": modules.build_unet(configs["unet"]), "vae": modules.build_vae(configs["vae"]), **text}
    if family not in _UNETS:
        raise MaquetteError(f"there is no family {family!r}; choose from sd1, sd2, sdxl and pocket.")
    texts = {part: modules.build_text_encoder(config, part == "te2") for part, config in _TEXTS[family].items()}
    return {"unet": modules.build_unet(_UNETS[family]), "vae": modules.build_vae(_VAE), **texts}
