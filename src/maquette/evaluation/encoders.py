"""CLIP and DINO of the user's own, from local folders of transformers; nothing is ever fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import functional as F

from ..errors import MaquetteError
from ..parsing import read_object
from ..shown import reason_of

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DINO_TYPES = ("vit", "dinov2", "dinov2_with_registers", "dinov3_vit")
AT_ONCE = 16


@dataclass(frozen=True)
class Seen:
    """What an encoder is shown: pictures scaled so that the shorter side has `edge` pixels, of which the middle `crop`
    is taken, in units of the training pictures' deviation.
    """

    edge: int
    crop: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 3, crop, crop)."""
        height, width = pixels.shape[-2:]
        scale = self.edge / min(height, width)
        size = (max(self.crop, round(height * scale)), max(self.crop, round(width * scale)))
        scaled = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        top, left = (size[0] - self.crop) // 2, (size[1] - self.crop) // 2
        cut = scaled[..., top : top + self.crop, left : left + self.crop]
        mean, std = (pixels.new_tensor(values)[:, None, None].float() for values in (self.mean, self.std))
        return (cut - mean) / std


@dataclass(frozen=True)
class Encoder:
    """images: pictures as unit vectors. texts: only CLIP has them."""

    model: Any
    tokenizer: Any
    seen: Seen
    device: torch.device

    @property
    def name(self) -> str:
        return "DINO" if self.tokenizer is None else "CLIP"

    @torch.no_grad()
    def images(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, D) unit vectors: CLIP's projected feature, DINO's class token."""
        parts = []
        for some in pixels.split(AT_ONCE):
            shown = self.seen(some.to(self.device))
            if self.tokenizer is not None:
                found = _pooled(self.model.get_image_features(pixel_values=shown))
            else:
                found = self.model(pixel_values=shown).last_hidden_state[:, 0]
            parts.append(F.normalize(found.float(), dim=1).cpu())
        return torch.cat(parts)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor:
        """(B, D) unit vectors of prompts, cut at 77 tokens."""
        encoded = self.tokenizer(
            list(prompts), padding="max_length", truncation=True, max_length=self._window, return_tensors="pt"
        )
        found = self.model.get_text_features(
            input_ids=encoded["input_ids"].to(self.device), attention_mask=encoded["attention_mask"].to(self.device)
        )
        return F.normalize(_pooled(found).float(), dim=1).cpu()

    @property
    def _window(self) -> int:
        return int(self.model.config.text_config.max_position_embeddings)


def _pooled(found: Any) -> Tensor:
    """Versions of transformers return the features alone, or within an output."""
    features = found if isinstance(found, Tensor) else found.pooler_output
    assert isinstance(features, Tensor)
    return features


def open_clip(folder: Path, device: torch.device) -> Encoder:
    """Raises MaquetteError for a folder that holds no CLIP model of transformers, as safetensors."""
    config = _config(folder, "--clip", ("clip",))
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise MaquetteError(
            f"--clip {folder} has no tokenizer (tokenizer.json, or vocab.json and merges.txt), without which CLIP "
            "reads no prompt: copy it from where the model is from."
        )
    model, tokenizer = _load(folder, "CLIPModel", True)
    size = int(config.get("vision_config", {}).get("image_size", 224))
    return Encoder(model.to(device).eval(), tokenizer, _seen(folder, size, CLIP_MEAN, CLIP_STD), device)


def open_dino(folder: Path, device: torch.device) -> Encoder:
    """Raises MaquetteError for a folder that holds no DINO (ViT) model of transformers, as safetensors."""
    config = _config(folder, "--dino", DINO_TYPES)
    model, _ = _load(folder, "AutoModel", False)
    size = int(config.get("image_size", 224))
    return Encoder(model.to(device).eval(), None, _seen(folder, size, IMAGENET_MEAN, IMAGENET_STD), device)


def _config(folder: Path, option: str, types: Sequence[str]) -> dict[str, Any]:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise MaquetteError(
            f"{option} {folder} is no folder with a model of transformers (config.json and model.safetensors)."
        )
    config = read_object(folder / "config.json")
    if config.get("model_type") not in types:
        raise MaquetteError(
            f"{option} {folder} holds a model of the type {config.get('model_type')}, not {' or '.join(types)}."
        )
    return config


def _load(folder: Path, kind: str, words: bool) -> tuple[Any, Any]:
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise MaquetteError(
            "CLIP and DINO need the package transformers: pip install 'maquette-lora[encoders]'."
        ) from error
    try:
        model, told = getattr(transformers, kind).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
        reader: Any = transformers.AutoTokenizer
        tokenizer = reader.from_pretrained(folder, local_files_only=True) if words else None
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = reason_of(error)
        raise MaquetteError(f"{folder} cannot be opened: {reason}") from error
    missing = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))  # DINO has none
    if missing:
        raise MaquetteError(
            f"{folder} lacks {len(missing)} of the model's weights, such as {missing[0]}; get the whole model again."
        )
    return model, tokenizer


def _seen(folder: Path, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Seen:
    """As preprocessor_config.json says, where there is one."""
    file = folder / "preprocessor_config.json"
    settings = read_object(file) if file.is_file() else {}
    edge, crop = (_length(settings.get(key), size) for key in ("size", "crop_size"))
    if not settings.get("do_center_crop", "crop_size" in settings):
        crop = edge
    own_mean, own_std = (settings.get(key) or usual for key, usual in (("image_mean", mean), ("image_std", std)))
    for name, values in (("image_mean", own_mean), ("image_std", own_std)):
        if not (isinstance(values, list | tuple) and len(values) == 3 and all(_is_number(v) for v in values)):
            raise MaquetteError(f"{file} is damaged: its {name} is not three numbers.")
    if min(edge, crop, *own_std) <= 0:
        raise MaquetteError(f"{file} is damaged: a size or image_std in it is not above 0.")
    return Seen(edge, min(edge, crop), tuple(own_mean), tuple(own_std))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _length(value: Any, usual: int) -> int:
    """A size as transformers writes it: a number, {"shortest_edge": n} or {"height": n, "width": n}."""
    if isinstance(value, dict):
        value = value.get("shortest_edge", value.get("height"))
    return int(value) if _is_number(value) else usual
