"""Reading a model from a diffusers folder: configurations, weight files, scheduler."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import MaquetteError
from ..formats import safetensors

_WEIGHT_NAMES = ("diffusion_pytorch_model", "model")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the folder; MaquetteError when it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MaquetteError(f"{path} is missing, so {path.parent} is not a complete model folder.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise MaquetteError(f"{path} cannot be read as JSON: {str(error)[:120]}.") from error
    if not isinstance(content, dict):
        raise MaquetteError(f"{path} does not hold a JSON object.")
    return content


def weight_file(part: Path) -> Path:
    """The weight file of a part: full precision first, then the fp16 variant."""
    for variant in ("", ".fp16"):
        for name in _WEIGHT_NAMES:
            path = part / f"{name}{variant}.safetensors"
            if path.is_file():
                return path
    raise MaquetteError(
        f"{part} holds no weights: expected {_WEIGHT_NAMES[0]}.safetensors or {_WEIGHT_NAMES[1]}.safetensors."
    )


def read_weights(part: Path) -> dict[str, Tensor]:
    """Memory-mapped tensors of a part."""
    return safetensors.load(weight_file(part))


def folder_hash(folder: Path, parts: tuple[str, ...]) -> str:
    """sha256 over the sha256 of each part's weight file, in order."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(bytes.fromhex(safetensors.file_sha256(weight_file(folder / part))))
    return digest.hexdigest()
