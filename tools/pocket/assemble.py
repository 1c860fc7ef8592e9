"""Writes the folder that ships: a diffusers pipeline in fp16, the tokenizer and the image tower."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from torch import nn

from maquette.families.pocket.judge import TOWER_FILE, pack
from maquette.formats.safetensors import save

from . import tokenizer
from .scenes import COLOURS, OBJECTS, STYLES
from .towers import Towers
from .unet import SCHEDULER

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1",
    "feature_extractor": [None, None], "image_encoder": [None, None], "safety_checker": [None, None],
    "requires_safety_checker": False, "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"],
}  # fmt: skip


def write(folder: Path, vae: nn.Module, towers: Towers, unet: nn.Module, merge_list: Path) -> None:
    """Replace `folder`'s weights; the model card beside them is written by benchmarks/pocket_quality.py."""
    building = folder.with_name(folder.name + ".new")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    for name, module in (("unet", unet), ("vae", vae), ("text_encoder", towers.text)):
        module.to(memory_format=torch.contiguous_format).half().save_pretrained(building / name)
        module.float()
        config = building / name / "config.json"
        kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
        config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")
    (building / "scheduler").mkdir()
    (building / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER, indent=2) + "\n")
    (building / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    tokenizer.write(merge_list, building / "tokenizer")
    state = {k: v.half() if v.is_floating_point() else v for k, v in towers.image.state_dict().items()}
    save(
        state,
        building / TOWER_FILE,
        metadata=pack({"objects": list(OBJECTS), "styles": list(STYLES.values())}, COLOURS),
    )
    if folder.exists():
        shutil.rmtree(folder)
    building.rename(folder)
