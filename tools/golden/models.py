"""Narrow random models in the real architectures, written by diffusers and transformers as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

_SD1 = {
    "out_channels": 4, "layers_per_block": 2, "sample_size": 8, "block_out_channels": (32, 32, 64, 64),
    "cross_attention_dim": 64, "attention_head_dim": 8,
}  # fmt: skip
_SDXL = {
    "out_channels": 4, "layers_per_block": 2, "sample_size": 8, "block_out_channels": (64, 128, 128),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 1, 2), "attention_head_dim": (1, 2, 2), "cross_attention_dim": 64 + 128,
    "use_linear_projection": True, "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 6 * 256 + 128,
}  # fmt: skip
_NOISE = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1,
}  # fmt: skip


def _text(width: int, second: bool) -> dict[str, Any]:
    return {
        "vocab_size": 49408, "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 3,
        "num_attention_heads": width // 64, "projection_dim": width, "bos_token_id": 49406, "eos_token_id": 49407,
        "hidden_act": "gelu" if second else "quick_gelu", "pad_token_id": 0 if second else 49407,
    }  # fmt: skip


def write(folder: Path, sdxl: bool = False, channels: int = 4) -> Path:
    """A diffusers folder of SD1's or SDXL's build; channels 9 makes an inpainting base. Same numbers every time."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    networks: dict[str, Any] = {
        "unet": UNet2DConditionModel(in_channels=channels, **(_SDXL if sdxl else _SD1)),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=["DownEncoderBlock2D"] * 4,
            up_block_types=["UpDecoderBlock2D"] * 4,
            layers_per_block=1,
            scaling_factor=0.13025 if sdxl else 0.18215,
        ),
        "text_encoder": CLIPTextModel(CLIPTextConfig(**_text(64, False))),
    }
    if sdxl:
        networks["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**_text(128, True)))
    index: dict[str, Any] = {"_class_name": f"StableDiffusion{'XL' if sdxl else ''}Pipeline"}
    for name, network in networks.items():
        for parameter in network.requires_grad_(False).parameters():
            if parameter.ndim == 1:  # norms and biases, which begin as ones and zeros: emphasis divides by a mean
                parameter += 0.1 * torch.randn_like(parameter)
        network.save_pretrained(folder / name)
        index[name] = ["transformers" if "text" in name else "diffusers", type(network).__name__]
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDIMScheduler", **_NOISE}))
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
