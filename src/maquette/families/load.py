"""Opening a base model by name or path."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..formats import ldm, tensor_files
from . import configs, hub, modules
from .base import BaseModel
from .checkpoint import Checkpoint, read, read_folder
from .detect import FAMILY_NAMES, identify
from .pocket.spec import POCKET, WEIGHTS
from .sd.model import StableDiffusion
from .sd.spec import TARGETS
from .sd.text import Tokenizer
from .sdxl.model import StableDiffusionXL


def load(
    path: str | Path = "pocket",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    vae: str | Path | None = None,
    prediction_type: str | None = None,
) -> BaseModel:
    """Open a base model: "pocket" (inside the package), a single file (.safetensors, .ckpt), a diffusers folder, or
    "hf:owner/name" (the only spelling that may use the network).

    Weights are frozen, modules in eval mode. vae: a VAE-only file or folder to use instead of the model's own.
    prediction_type: "epsilon" or "v_prediction" where the file's own statement is wrong (see
    `checkpoint.prediction_rule`). Raises MaquetteError, naming the file, when something is missing, broken or of an
    unknown kind.
    """
    if str(path) == "pocket":
        checkpoint = read_folder(WEIGHTS, POCKET)
        checkpoint.source = "pocket"
    else:
        checkpoint = read(hub.download(str(path)) if hub.is_hub_id(path) else path, prediction_type)
    if vae is not None:
        checkpoint.parts["vae"], checkpoint.configs["vae"] = read_vae(Path(vae), checkpoint.spec.name)
    return build(checkpoint, dtype, device)


def build(checkpoint: Checkpoint, dtype: torch.dtype, device: str | torch.device = "cpu") -> BaseModel:
    """Networks from a checkpoint. SDXL's own VAE overflows in float16 and stays float32 then, unless it says it is
    safe.
    """
    if "vae" not in checkpoint.parts:
        raise MaquetteError(f"{checkpoint.source} contains no VAE; name one with --vae.")
    vae_dtype = torch.float32 if dtype == torch.float16 and checkpoint.configs["vae"].get("force_upcast") else dtype
    family = checkpoint.spec.name

    def part(name: str, module: torch.nn.Module) -> torch.nn.Module:
        tensors = checkpoint.parts[name]
        if name == "text_encoder_2":
            tensors = {n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in tensors.items()}
        wanted = vae_dtype if name == "vae" else dtype
        return modules.fill(module, tensors, f"{checkpoint.source} ({name})", wanted, device)

    found = checkpoint.configs
    encoders = [part("text_encoder", modules.build_text_encoder(found["text_encoder"]))]
    tokenizers = [_tokenizer(checkpoint, "text_encoder", 0 if family == "sd2" else None)]
    if family == "sdxl":
        encoders.append(part("text_encoder_2", modules.build_text_encoder(found["text_encoder_2"], projection=True)))
        tokenizers.append(_tokenizer(checkpoint, "text_encoder_2", 0))
    model = (StableDiffusionXL if family == "sdxl" else StableDiffusion)(
        spec=checkpoint.spec,
        unet=part("unet", modules.build_unet(found["unet"])),
        vae=part("vae", modules.build_vae(found["vae"])),
        text_encoders=encoders,
        tokenizers=tokenizers,
        scheduler_config={key: value for key, value in checkpoint.scheduler.items() if not key.startswith("_")},
        source=checkpoint.source,
        content_hash="",
        targets=TARGETS,
    )
    model.hash_when_asked(checkpoint.content_hash)
    return model


def read_vae(path: Path, family: str) -> tuple[dict[str, Tensor], configs.Config]:
    """Tensors and configuration of a VAE: a VAE-only file of either layout, a whole model's file, or a diffusers
    folder.
    """
    if path.is_dir():
        return _vae_folder(path)
    file = tensor_files.read(path)
    shapes = {name: tuple(tensor.shape) for name, tensor in file.tensors.items()}
    identity = identify(shapes)
    prefixes = dict(identity.prefixes)
    if identity.kind == "vae" and identity.layout == "diffusers":
        tensors = {ldm.vae_modern_name(name): tensor for name, tensor in file.tensors.items()}
    elif "vae" in prefixes:
        tensors = ldm.split(file.tensors, {"vae": prefixes["vae"]}).parts["vae"]
    else:
        raise MaquetteError(f"{path} contains no VAE.")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return tensors, configs.vae_config(shapes, family)


def _vae_folder(path: Path) -> tuple[dict[str, Tensor], configs.Config]:
    from . import folders

    folder = path / "vae" if (path / "vae").is_dir() else path
    tensors: dict[str, Tensor] = {}
    for file in folders.weight_files(folder):
        tensors |= tensor_files.read(file).tensors
    return {ldm.vae_modern_name(n): t for n, t in tensors.items()}, folders.read_json(folder / "config.json")


def _tokenizer(checkpoint: Checkpoint, part: str, pad: int | None) -> Tokenizer:
    folder = checkpoint.tokenizers.get(part)
    path = folder / "tokenizer.json" if folder is not None else None
    return Tokenizer(path, pad) if path is not None and path.is_file() else Tokenizer(pad=pad)


__all__ = ["FAMILY_NAMES", "build", "load", "read_vae"]
