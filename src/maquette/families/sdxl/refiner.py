"""Stable Diffusion XL's refiner: goes on from the base's latents at low noise; one text encoder, an aesthetic score.

Podell et al. 2307.01952, section 2.5. It draws nothing by itself and is never trained here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...core.denoiser import Conditioning
from ...errors import MaquetteError
from ...formats import ldm, tensor_files
from ...formats.known_hashes import files_sha256
from ...formats.tokenizer import Tokenizer
from .. import configs, folders, modules
from ..base import FamilySpec
from ..checkpoint import derive_configs
from ..detect import FAMILY_NAMES, identify
from ..sd.model import StableDiffusion
from .model import LAYER
from .spec import SDXL

REFINER = FamilySpec("refiner", "", "", SDXL.native_size, SDXL.latent_factor, (), zero_negative=True)
SCORE, NEGATIVE_SCORE = 6.0, 2.5  # A1111's and diffusers' aesthetic scores of the prompt and of the negative one
_PARTS = ("unet", "text_encoder_2")
Parts = dict[str, dict[str, Tensor]]


class Refiner(StableDiffusion):
    """UNet with size conditioning and OpenCLIP bigG. Its latents are SDXL's, so that it needs no VAE of its own."""

    def context(self, x_t: Tensor, conditioning: Conditioning) -> tuple[Any, ...]:
        if conditioning.pooled is None or conditioning.time_ids is None:
            raise ValueError("the refiner needs the pooled text vector and the size numbers in its conditioning")
        dtype = next(self.unet.parameters()).dtype
        return self._text(conditioning), conditioning.pooled.to(dtype), conditioning.time_ids.to(dtype)

    def encode_ids(self, ids: Sequence[Tensor], clip_skip: int = 1) -> Conditioning:
        """Token windows -> tokens (B, 77, D) of the layer before the last, whatever clip skip says, pooled (B, P)."""
        features = self.text_encoders[0](ids[0])
        return Conditioning(features.hidden_states[-LAYER], features.pooled)


def size_numbers(width: int, height: int, score: float) -> Tensor:
    """(1, 5) of a picture that is not cropped: height, width, 0, 0, aesthetic score."""
    return torch.tensor([[height, width, 0, 0, score]], dtype=torch.float32)


def load(path: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu") -> Refiner:
    """Open a refiner: a single file or a diffusers folder. Raises MaquetteError, naming the file, for anything else."""
    path = Path(path)
    if not path.exists():
        raise MaquetteError(f"{path} does not exist; give the SDXL refiner's file or folder.")
    if path.is_dir():
        parts, found, files = _read_folder(path)
    else:
        parts, files = _read_file(path), [path]
        found = derive_configs(parts, "refiner", str(path))
    unet = modules.fill(modules.build_unet(found["unet"]), parts["unet"], f"{path} (unet)", dtype, device)
    named = {n if n.startswith("text_projection") else f"text_model.{n}": t for n, t in parts["text_encoder_2"].items()}
    empty = modules.build_text_encoder(found["text_encoder_2"], projection=True)
    text = modules.fill(empty, named, f"{path} (text encoder)", dtype, device)
    made = Refiner(REFINER, unet, nn.Identity(), [text], [Tokenizer(pad=0)], {}, str(path), "")
    made.hash_when_asked(partial(files_sha256, files))
    return made


def _require_refiner(path: Path, family: str | None) -> None:
    if family != "refiner":
        named = FAMILY_NAMES.get(str(family), "no model that maquette knows")
        raise MaquetteError(f"{path} is {named}, not the SDXL refiner.")


def _read_file(path: Path) -> Parts:
    file = tensor_files.read(path)
    identity = identify({name: tuple(tensor.shape) for name, tensor in file.tensors.items()})
    _require_refiner(path, identity.family)
    prefixes = {part: prefix for part, prefix in identity.prefixes if part in _PARTS}
    if missing := [part for part in _PARTS if part not in prefixes]:
        raise MaquetteError(f"{path} is the SDXL refiner without its {missing[0].replace('_', ' ')}.")
    return {part: tensors for part, tensors in ldm.split(file.tensors, prefixes).parts.items() if part in _PARTS}


def _read_folder(path: Path) -> tuple[Parts, dict[str, configs.Config], list[Path]]:
    files = {part: folders.weight_files(path / part) for part in _PARTS}
    parts: Parts = {part: {} for part in _PARTS}
    for part, own in files.items():
        for file in own:
            parts[part] |= tensor_files.read(file).tensors
    _require_refiner(path, identify({name: tuple(t.shape) for name, t in parts["unet"].items()}).family)
    text = parts["text_encoder_2"].items()
    parts["text_encoder_2"] = {n.removeprefix("text_model."): t for n, t in text if not n.endswith("position_ids")}
    found = {part: folders.read_json(path / part / "config.json") for part in _PARTS}
    return parts, found, [file for own in files.values() for file in own]
