"""Opening a base model by name or path."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

import torch

from ..errors import MaquetteError
from ..formats.known_hashes import files_sha256
from ..formats.tokenizer import Tokenizer
from . import hub, modules
from .base import BaseModel
from .checkpoint import Checkpoint, override_prediction, read, read_folder
from .detect import FAMILY_NAMES
from .parts import read_vae, replace_vae
from .pocket.spec import POCKET, WEIGHTS
from .prediction import is_edm
from .registry import family_of
from .sd.model import StableDiffusion
from .sd.spec import TARGETS
from .sdxl.model import StableDiffusionXL

kept_by: ContextVar[Callable[..., BaseModel] | None] = ContextVar("kept_by", default=None)
"""Who opens bases instead of `open_anew`, in this thread: `families.kept.KeptBases`, while it is in use."""


@contextmanager
def _without_collection() -> Iterator[None]:
    """Python's cycle collector pauses: while networks are built it finds nothing and takes a sixth of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load(
    path: str | Path = "pocket",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    vae: str | Path | None = None,
    prediction_type: str | None = None,
    unet_dtype: torch.dtype | None = None,
) -> BaseModel:
    """Open a base model: "pocket" (inside the package), a single file (.safetensors, .ckpt), a diffusers folder, or
    "hf:owner/name" (the only spelling that may use the network).

    Weights are frozen, modules in eval mode. vae: a VAE-only file or folder to use instead of the model's own.
    unet_dtype: of the UNet, where it is not that of the others: read so, it never takes more memory than it must.
    prediction_type: "epsilon", "v_prediction" or "flow" where the file does not say or says it wrong (see
    `prediction.prediction_rule`). Raises MaquetteError, naming the file, when something is missing, broken or of an
    unknown kind.
    """
    if (kept := kept_by.get()) is not None:
        return kept(path, dtype, torch.device(device), vae, prediction_type, unet_dtype or dtype)
    return open_anew(path, dtype, device, vae, prediction_type, unet_dtype)


def open_anew(
    path: str | Path,
    dtype: torch.dtype,
    device: str | torch.device,
    vae: str | Path | None = None,
    prediction_type: str | None = None,
    unet_dtype: torch.dtype | None = None,
) -> BaseModel:
    """What `load` does where no base is kept in memory (`families.kept`)."""
    if (family := family_of(path)) is not None:
        return family.open(Path(path), dtype, torch.device(device), unet_dtype or dtype)
    return build(find(path, vae, prediction_type), dtype, device, unet_dtype)


def find(path: str | Path, vae: str | Path | None = None, prediction_type: str | None = None) -> Checkpoint:
    """What `load` opens, judged but not yet made into networks: nothing but names and shapes has been read.

    Raises MaquetteError as `load` does.
    """
    prediction_type = None if prediction_type == "auto" else prediction_type
    if str(path) == "pocket":
        checkpoint = read_folder(WEIGHTS, POCKET)
        checkpoint.source = "pocket"
        if prediction_type is not None:
            override_prediction(checkpoint, prediction_type)
    else:
        checkpoint = read(hub.download(str(path)) if hub.is_hub_id(path) else path, prediction_type)
        if is_edm(checkpoint.extras, checkpoint.scheduler):
            raise MaquetteError(
                f"{path} is an EDM model (CosXL, Playground 2.5 and the like), whose noise levels are not Stable "
                "Diffusion's: it can be inspected and converted, but neither drawn with nor trained on."
            )
    if vae is not None:
        replace_vae(checkpoint, Path(vae))
    if "vae" not in checkpoint.parts:
        raise MaquetteError(f"{checkpoint.source} contains no VAE; name one with --vae FILE.")
    return checkpoint


@_without_collection()
def build(
    checkpoint: Checkpoint,
    dtype: torch.dtype,
    device: str | torch.device = "cpu",
    unet_dtype: torch.dtype | None = None,
) -> BaseModel:
    """Networks from a checkpoint. SDXL's own VAE overflows in float16 and stays float32 then, unless it says it is
    safe.
    """
    if "vae" not in checkpoint.parts:
        raise MaquetteError(f"{checkpoint.source} contains no VAE; name one with --vae FILE.")
    family = checkpoint.spec.name
    vae_dtype, notices = dtype, []
    if dtype == torch.float16 and checkpoint.configs["vae"].get("force_upcast"):
        vae_dtype = torch.float32
        notices.append(
            "The VAE of Stable Diffusion XL overflows in fp16 and runs in fp32 here; one that is fixed for fp16 can be "
            "named with --vae."
        )

    def part(name: str, module: torch.nn.Module) -> torch.nn.Module:
        tensors = checkpoint.parts[name]
        if name == "text_encoder_2":
            tensors = {n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in tensors.items()}
        wanted = {"vae": vae_dtype, "unet": unet_dtype or dtype}.get(name, dtype)
        return modules.fill(module, tensors, f"{checkpoint.source} ({name})", wanted, device)

    found = checkpoint.configs
    encoders = [part("text_encoder", modules.build_text_encoder(found["text_encoder"]))]
    tokenizers = [_tokenizer(checkpoint, "text_encoder", 0 if family == "sd2" else None)]
    if family == "sdxl":
        encoders.append(part("text_encoder_2", modules.build_text_encoder(found["text_encoder_2"], projection=True)))
        tokenizers.append(_tokenizer(checkpoint, "text_encoder_2", 0))
    model = (StableDiffusionXL if family == "sdxl" else StableDiffusion)(
        spec=checkpoint.spec,
        network=part("unet", modules.build_unet(found["unet"])),
        vae=part("vae", modules.build_vae(found["vae"])),
        text_encoders=encoders,
        tokenizers=tokenizers,
        scheduler_config={key: value for key, value in checkpoint.scheduler.items() if not key.startswith("_")},
        source=checkpoint.source,
        content_hash="",
        targets=TARGETS,
        vae_source=checkpoint.vae_source,
        vae_hash=checkpoint.vae_hash,
        told_prediction=checkpoint.told_prediction,
        notices=notices,
    )
    model.hash_when_asked(partial(files_sha256, checkpoint.files))  # the checkpoint would keep its file mapped
    return model


def _tokenizer(checkpoint: Checkpoint, part: str, pad: int | None) -> Tokenizer:
    folder = checkpoint.tokenizers.get(part)
    path = folder / "tokenizer.json" if folder is not None else None
    return Tokenizer(path, pad) if path is not None and path.is_file() else Tokenizer(pad=pad)


__all__ = ["FAMILY_NAMES", "build", "load", "read_vae"]
