"""Narrow random models in the real architectures, made by diffusers and transformers themselves: oracles for reading
and writing.
"""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch

from maquette.families.configs import scheduler_config
from maquette.formats.tokenizer import EMBEDDED

VOCABULARY = 49408


def unet_options(family: str, channels: int) -> dict[str, Any]:
    common: dict[str, Any] = {"in_channels": channels, "out_channels": 4, "layers_per_block": 2, "sample_size": 8}
    if family == "sd1":
        return common | {"block_out_channels": (32, 32, 64, 64), "cross_attention_dim": 64, "attention_head_dim": 8}
    if family == "sd2":
        options = {"block_out_channels": (64, 64, 128, 128), "attention_head_dim": (1, 1, 2, 2)}
        return common | options | {"cross_attention_dim": 64, "use_linear_projection": True}
    return common | {
        "block_out_channels": (64, 128, 128),
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 1, 2),
        "attention_head_dim": (1, 2, 2),
        "cross_attention_dim": 64 + 128,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 128,
    }


def text_options(width: int, open_clip: bool, layers: int = 3) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "projection_dim": width,
        "hidden_act": "gelu" if open_clip else "quick_gelu",
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 0 if open_clip else 49407,
    }


def modules(family: str, channels: int = 4, seed: int = 0) -> dict[str, torch.nn.Module]:
    """Randomly initialised networks of a family; biases and norms are random too, so that no two tensors are alike.

    Copies of those that a process makes once; afterwards the global generator stands at the seed.
    """
    made = copy.deepcopy(shared(family, channels, seed))
    torch.manual_seed(seed)
    return made


@cache
def shared(family: str, channels: int = 4, seed: int = 0) -> dict[str, torch.nn.Module]:
    """The same networks for all who ask: not to be changed."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    levels = 4
    made: dict[str, torch.nn.Module] = {
        "unet": UNet2DConditionModel(**unet_options(family, channels)),
        "vae": AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=["DownEncoderBlock2D"] * levels,
            up_block_types=["UpDecoderBlock2D"] * levels,
            layers_per_block=1,
            scaling_factor=0.13025 if family == "sdxl" else 0.18215,
        ),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(**text_options(64, family == "sd2", layers=23 if family == "sd2" else 3))
        ),
    }
    if family == "sdxl":
        made["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**text_options(128, True)))
    for module in made.values():
        module.requires_grad_(False).eval()
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn_like(parameter)
    return made


def _padding(text: str, with_zero: bool) -> str:
    """A tokenizer file that pads with token 0, "!", as SD2's and SDXL's second one do."""
    content = json.loads(text)
    if with_zero and "padding" in content:
        content["padding"] |= {"pad_id": 0, "pad_token": "!"}
    if with_zero and "pad_token" in content:
        content["pad_token"] = "!"
    return json.dumps(content)


def write_folder(folder: Path, family: str, channels: int = 4, prediction: str = "epsilon", **options: Any) -> Path:
    """A diffusers folder written by diffusers and transformers; options are a seed and a dtype."""
    dtype = options.get("dtype", torch.float32)
    shutil.copytree(
        _written(family, channels, prediction, options.get("seed", 0), dtype).name, folder, dirs_exist_ok=True
    )
    return folder


@cache
def _written(
    family: str, channels: int, prediction: str, seed: int, dtype: torch.dtype
) -> tempfile.TemporaryDirectory[str]:
    """What copies are made of, written once by each process that needs it; it goes away with the process."""
    made = tempfile.TemporaryDirectory(prefix="maquette-tiny-")
    folder = Path(made.name)
    index: dict[str, Any] = {
        "_class_name": "StableDiffusionXLPipeline" if family == "sdxl" else "StableDiffusionPipeline"
    }
    made_once = shared if dtype == torch.float32 else modules
    for name, module in made_once(family, channels, seed).items():
        module.to(dtype).save_pretrained(folder / name)
        index[name] = ["transformers" if "text" in name else "diffusers", type(module).__name__]
        if "text" in name:
            tokenizer = name.replace("text_encoder", "tokenizer")
            (folder / tokenizer).mkdir()
            pads_with_zero = family == "sd2" or name == "text_encoder_2"
            for path in EMBEDDED.parent.iterdir():
                (folder / tokenizer / path.name).write_text(_padding(path.read_text(), pads_with_zero))
            index[tokenizer] = ["transformers", "CLIPTokenizer"]
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler_config(family, prediction)))
    index["scheduler"] = ["diffusers", "DDIMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    return made
