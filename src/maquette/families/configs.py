"""Configurations of diffusers and transformers networks, read off the shapes of their weights.

Three numbers leave no trace in shapes and are the families' constants: heads per attention (8 in SD1, 64 channels
each in SD2 and SDXL), groups of group norm (32), and the latent scale. A file written by maquette that differs says
so in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]
Config = dict[str, Any]

_TIME_WIDTH = 256  # SDXL: channels for each of the six size numbers


def unet_config(shapes: Shapes, family: str) -> Config:
    """UNet2DConditionModel configuration from diffusers names and shapes."""
    widths = [shapes[f"down_blocks.{i}.resnets.0.conv1.weight"][0] for i in range(_count(shapes, "down_blocks"))]
    down = [_depth(shapes, f"down_blocks.{i}.attentions.0") for i in range(len(widths))]
    up = [_depth(shapes, f"up_blocks.{i}.attentions.0") for i in range(len(widths))]
    middle = _depth(shapes, "mid_block.attentions.0")  # which has that of the last level, also where that has none
    linear = any(name.endswith(".proj_in.weight") and len(shape) == 2 for name, shape in shapes.items())
    config: Config = {
        "_class_name": "UNet2DConditionModel",
        "sample_size": {"sd1": 64, "sd2": 64}.get(family, 128),
        "in_channels": shapes["conv_in.weight"][1],
        "out_channels": shapes["conv_out.weight"][0],
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, "down_blocks.0.resnets"),
        "down_block_types": ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in down],
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in up],
        "transformer_layers_per_block": [*(depth or 1 for depth in down[:-1]), down[-1] or middle or 1],
        "attention_head_dim": [width // 64 for width in widths] if linear else 8,
        "cross_attention_dim": next(s[1] for name, s in shapes.items() if name.endswith("attn2.to_k.weight")),
        "use_linear_projection": linear,
    }
    if len(set(config["transformer_layers_per_block"])) == 1:
        config["transformer_layers_per_block"] = config["transformer_layers_per_block"][0]
    if "add_embedding.linear_1.weight" in shapes:
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": _TIME_WIDTH,
            "projection_class_embeddings_input_dim": shapes["add_embedding.linear_1.weight"][1],
        }
    return config


def vae_config(shapes: Shapes, family: str) -> Config:
    """AutoencoderKL configuration from diffusers names and shapes."""
    widths = [
        shapes[f"encoder.down_blocks.{i}.resnets.0.conv1.weight"][0]
        for i in range(_count(shapes, "encoder.down_blocks"))
    ]
    scaling = {"sdxl": 0.13025, "pocket": 1.0}.get(family, 0.18215)
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": 1024 if family == "sdxl" else 512,
        "in_channels": shapes["encoder.conv_in.weight"][1],
        "out_channels": shapes["decoder.conv_out.weight"][0],
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "block_out_channels": widths,
        "layers_per_block": _count(shapes, "encoder.down_blocks.0.resnets"),
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in shapes,
        "use_quant_conv": "quant_conv.weight" in shapes,
        "use_post_quant_conv": "post_quant_conv.weight" in shapes,
        "scaling_factor": scaling,
        "force_upcast": family in ("sdxl", "pocket"),
    } | ({"norm_num_groups": 16} if family == "pocket" else {})


def vae_is_fixed(metadata: Mapping[str, str]) -> bool:
    """Whether a single file says that its SDXL VAE is one of those made to run in float16, which shapes do not tell:
    `maquette.vae_fp16`, or "fp16 fix" in its modelspec title or description.
    """
    text = " ".join(metadata.get(f"modelspec.{key}", "") for key in ("title", "description"))
    return (
        metadata.get("maquette.vae_fp16") == "yes" or re.search(r"fp16[\s_-]*(vae[\s_-]*)?fix", text, re.I) is not None
    )


def text_config(shapes: Shapes, family: str, second: bool = False) -> Config:
    """CLIPTextConfig from transformers names (without `text_model.`) and shapes."""
    open_clip = second or family == "sd2"
    vocabulary, width = shapes["embeddings.token_embedding.weight"]
    return {
        "architectures": ["CLIPTextModelWithProjection" if second else "CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": shapes["encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, "encoder.layers"),
        "num_attention_heads": max(1, width // 64),
        "max_position_embeddings": shapes["embeddings.position_embedding.weight"][0],
        "projection_dim": shapes["text_projection.weight"][0] if "text_projection.weight" in shapes else width,
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "layer_norm_eps": 1e-05,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 0 if open_clip else 49407,
    }


def scheduler_config(family: str, prediction_type: str, zero_snr: bool = False) -> Config:
    """The noise schedule that the family was trained with, as a diffusers configuration. A "flow" has a shift
    (`core.flow`) instead of betas: 3 for SDXL's 1024 pixels, as SD3 has it, 1 for the smaller ones.
    """
    if prediction_type == "flow":
        return {
            "_class_name": "FlowMatchEulerDiscreteScheduler",
            "num_train_timesteps": 1000,
            "shift": 3.0 if family == "sdxl" else 1.0,
            "prediction_type": "flow",
        }
    return {
        "_class_name": "EulerDiscreteScheduler" if family == "sdxl" else "DDIMScheduler",
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": prediction_type,
        "timestep_spacing": "trailing" if zero_snr else "leading",
        "steps_offset": 1,
        "rescale_betas_zero_snr": zero_snr,
        **({} if family == "sdxl" else {"set_alpha_to_one": False, "clip_sample": False}),
    }


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered children `prefix.N.` there are."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d+)\.")
    return 1 + max((int(m[1]) for name in shapes if (m := pattern.match(name))), default=-1)


def _depth(shapes: Shapes, attention: str) -> int:
    return _count(shapes, f"{attention}.transformer_blocks")
