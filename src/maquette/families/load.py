"""Opening a base model by name or path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import MaquetteError
from . import folders, modules
from .base import BaseModel, FamilySpec
from .pocket.spec import POCKET, WEIGHTS
from .sd.model import StableDiffusion
from .sd.spec import SD1, SD2, SD2_V, TARGETS
from .sd.text import Tokenizer


def load(
    path: str | Path = "pocket", dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> BaseModel:
    """Open a base model: "pocket" (inside the package) or a diffusers folder. Weights are frozen, modules in eval mode.

    Raises MaquetteError, naming the file, when something is missing, broken or of an unknown kind.
    """
    if str(path) == "pocket":
        return load_folder(WEIGHTS, dtype, device, POCKET, source="pocket")
    folder = Path(path)
    if not folder.exists():
        raise MaquetteError(f'{path} does not exist; give "pocket" or a diffusers model folder.')
    if not folder.is_dir():
        raise MaquetteError(f"{path} is a file; give a diffusers model folder (one with model_index.json).")
    return load_folder(folder, dtype, device)


def load_folder(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    spec: FamilySpec | None = None,
    source: str | None = None,
) -> BaseModel:
    """Open a diffusers folder of a Stable Diffusion 1 or 2 model. `spec` is found from the weights unless given."""
    folders.read_json(folder / "model_index.json")
    configs = {part: folders.read_json(folder / part / "config.json") for part in ("unet", "vae", "text_encoder")}
    scheduler = folders.read_json(folder / "scheduler" / "scheduler_config.json")
    spec = spec or _spec(folder, configs, scheduler)

    def part(name: str, module: torch.nn.Module) -> torch.nn.Module:
        tensors = folders.read_weights(folder / name)
        if name == "text_encoder":
            tensors = {k.removeprefix("text_model."): t for k, t in tensors.items() if not k.endswith(".position_ids")}
        return modules.fill(module, tensors, str(folders.weight_file(folder / name)), dtype, device)

    return StableDiffusion(
        spec=spec,
        unet=part("unet", modules.build_unet(configs["unet"])),
        vae=part("vae", modules.build_vae(configs["vae"])),
        text_encoders=[part("text_encoder", modules.build_text_encoder(configs["text_encoder"]))],
        tokenizers=[_tokenizer(folder)],
        scheduler_config={key: value for key, value in scheduler.items() if not key.startswith("_")},
        source=source or str(folder),
        content_hash=folders.folder_hash(folder, ("unet", "vae", "text_encoder")),
        targets=TARGETS,
    )


def _tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer" / "tokenizer.json"
    return Tokenizer(path) if path.is_file() else Tokenizer()


def _spec(folder: Path, configs: dict[str, dict[str, Any]], scheduler: dict[str, Any]) -> FamilySpec:
    """Which family a folder belongs to, from its text width; a scale that is none of the two is SD1's architecture."""
    if (folder / "text_encoder_2").is_dir():
        raise MaquetteError(f"{folder} is an SDXL model, which this version cannot open yet.")
    if configs["unet"].get("cross_attention_dim") == 1024:
        return SD2_V if scheduler.get("prediction_type") == "v_prediction" else SD2
    return SD1
