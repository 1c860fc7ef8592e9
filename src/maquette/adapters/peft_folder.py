"""Adapters as PEFT's folders: adapter_model.safetensors and adapter_config.json, one folder per network."""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import unfinished
from . import parts as adapter_parts
from . import writing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_OLD_WEIGHTS = "adapter_model.bin"
PARTS = ("unet", "text_encoder", "text_encoder_2")
_KEY = re.compile(r"(unet|text_encoder_2|text_encoder)\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)")


def write(
    modules: Mapping[str, Mapping[str, Tensor]],
    folder: Path,
    dtype: torch.dtype | None,
    metadata: Mapping[str, str],
    family: str = "unknown",
) -> None:
    """Write modules as a folder for PEFT: the UNet's at its root, or a folder for each network where text
    encoders are adapted too. It appears complete or not at all.

    The strength is multiplied into the factors, so that alpha is the rank everywhere. Raises ValueError for kinds other
    than LoRA, DoRA, LoHa and LoKr and for two kinds at once, MaquetteError when the folder is taken.
    """
    kinds = {adapter_parts.kind(factors).replace("locon", "lora"): name for name, factors in modules.items()}
    if kinds.keys() & {"loha", "lokr"} and len(kinds) > 1:
        (first, name), (second, other) = list(kinds.items())[:2]
        raise ValueError(f"PEFT has one kind of adapter in a folder; {name} is {first}, {other} is {second}")
    from ..formats import safetensors

    found, configs = (_lycoris if kinds.keys() & {"loha", "lokr"} else _lora)(modules, family)
    if folder.exists():
        raise MaquetteError(f"{folder} exists already; choose another name.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=unfinished(folder), dir=folder.parent) as temporary:
        root = Path(temporary) / "adapter"
        for part, tensors in found.items():
            place = root if list(found) == ["unet"] else root / part
            safetensors.save(tensors, place / WEIGHTS, {**metadata, "format": "pt"}, dtype)
            (place / CONFIG).write_text(json.dumps(configs[part], indent=2, sort_keys=True) + "\n", encoding="utf-8")
        os.replace(root, folder)


def _lora(
    modules: Mapping[str, Mapping[str, Tensor]], family: str
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in writing.keys_of("peft", modules, family).items():
        match = _KEY.fullmatch(key)
        if match is None:
            raise ValueError(f"PEFT has no name for {key}")
        part, path, factor = match.groups()
        found.setdefault(part, {})[f"base_model.model.{_own_path(part, path)}.{factor}"] = tensor
    return found, {part: _config(tensors) for part, tensors in found.items()}


def _own_path(part: str, path: str) -> str:
    """transformers 5 has no `text_model.` level in the first text encoder."""
    return path.removeprefix("text_model.") if part == "text_encoder" else path


def _lycoris(
    modules: Mapping[str, Mapping[str, Tensor]], family: str
) -> tuple[dict[str, dict[str, Tensor]], dict[str, dict[str, Any]]]:
    from . import peft_lycoris

    networks: dict[str, dict[str, Mapping[str, Tensor]]] = {}
    for name, factors in modules.items():
        why = writing.refusal("peft", name, factors)
        if why:
            raise ValueError(why)
        part, _, path = writing.network_path(name).partition(".")
        networks.setdefault(part, {})[_own_path(part, path)] = factors
    kind = adapter_parts.kind(next(iter(modules.values())))
    found, configs = {}, {}
    for part, layers in networks.items():
        made, configs[part] = {"loha": peft_lycoris.loha, "lokr": peft_lycoris.lokr}[kind](layers)
        found[part] = {f"base_model.model.{p}.{factor}": t for p, fs in made.items() for factor, t in fs.items()}
    return found, configs


def _config(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    ranks = {
        key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"): tensor.shape[0]
        for key, tensor in tensors.items()
        if key.endswith(".lora_A.weight")
    }
    with_magnitude = sum(key.endswith(".lora_magnitude_vector") for key in tensors)
    if with_magnitude not in (0, len(ranks)):
        raise ValueError("PEFT cannot mix LoRA and DoRA modules in one adapter")
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "bias": "none",
        "r": usual,
        "lora_alpha": usual,
        "lora_dropout": 0.0,
        "rank_pattern": others,
        "alpha_pattern": others,
        "target_modules": sorted(ranks),
        "use_dora": bool(with_magnitude),
        "use_rslora": False,
    }


def parts_of(folder: Path) -> dict[str, Path]:
    """Network -> its file of weights, of a PEFT folder; a single adapter belongs to "", whatever its names say."""
    alone = _weights_in(folder)
    if alone is not None:
        return {"": alone}
    return {part: file for part in PARTS if (file := _weights_in(folder / part)) is not None}


def _weights_in(folder: Path) -> Path | None:
    return next((folder / name for name in (WEIGHTS, _OLD_WEIGHTS) if (folder / name).is_file()), None)
