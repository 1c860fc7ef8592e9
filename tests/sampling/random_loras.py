"""LoRA files with random weights for the pocket base."""

from __future__ import annotations

from pathlib import Path

import torch

from maquette.adapters.file import Adapter, AdapterModule
from maquette.families import targets
from maquette.families.base import BaseModel

RANK = 4


def random_adapter(base: BaseModel, text_encoder: bool = True, strength: float = 0.02, seed: int = 0) -> Adapter:
    """Attention and feed-forward of the UNet and, unless told otherwise, the text encoder; alpha is half the rank."""
    generator = torch.Generator().manual_seed(seed)
    modules = {}
    for name, (parent, attribute) in targets(base, text_encoder=text_encoder).items():
        weight = getattr(parent, attribute).weight
        out, inner = weight.shape[:2]
        tail = (1, 1) if weight.ndim == 4 else ()
        modules[name] = AdapterModule(
            {
                "lora_down.weight": torch.randn(RANK, inner, *tail, generator=generator),
                "lora_up.weight": torch.randn(out, RANK, *tail, generator=generator) * strength,
                "alpha": torch.tensor(RANK / 2),
            }
        )
    return Adapter("pocket", "lora", modules, {"ss_base_model_version": "maquette_pocket"})


def write_lora(base: BaseModel, path: Path, seed: int = 0, name: str | None = None) -> Path:
    """The adapter as a file; `name` is written inside it as ss_output_name."""
    random_adapter(base, seed=seed).save(path, metadata={"ss_output_name": name} if name else None)
    return path
