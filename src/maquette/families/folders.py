"""Files of a diffusers folder: configurations and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..limits import RECORD_BYTES
from ..parsing import read_json as read_any_json

_WEIGHT_NAMES = ("diffusion_pytorch_model", "model", "pytorch_model")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the folder; MaquetteError when it is missing or broken."""
    if not path.exists():
        raise MaquetteError(f"{path} is missing, so {path.parent} is not a complete model folder.")
    content = read_any_json(path, RECORD_BYTES, "configuration of a model")
    if not isinstance(content, dict):
        raise MaquetteError(f"{path} does not hold a JSON object.")
    return content


def weight_files(part: Path) -> list[Path]:
    """The weight files of a part: safetensors before .bin, full precision before the fp16 variant, all shards of
    one.
    """
    for suffix in ("safetensors", "bin"):
        for variant in ("", ".fp16"):
            for name in _WEIGHT_NAMES:
                path = part / f"{name}{variant}.{suffix}"
                if path.is_file():
                    return [path]
                index = part / f"{name}.{suffix}.index{variant}.json"
                if index.is_file():
                    return _shards(index)
    raise MaquetteError(
        f"{part} holds no weights: expected {_WEIGHT_NAMES[0]}.safetensors or {_WEIGHT_NAMES[1]}.safetensors."
    )


def _shards(index: Path) -> list[Path]:
    mapping = read_json(index).get("weight_map")
    if not isinstance(mapping, dict) or not all(isinstance(name, str) for name in mapping.values()):
        raise MaquetteError(f"{index} does not list its weight files.")
    files = [index.parent / Path(name).name for name in sorted(set(mapping.values()))]
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise MaquetteError(f"{missing[0]} is missing; {index.name} names it as a part of the model.")
    return files
