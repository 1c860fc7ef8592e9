"""Related narrow models as single files, and an independent arithmetic in float64."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from maquette.families import checkpoint, save
from maquette.families.checkpoint import Checkpoint
from tests.families import tiny

WORDS = 500


def with_few_words(model: Checkpoint) -> Checkpoint:
    """With a short vocabulary, which keeps files small: half of a narrow model is its table of words."""
    for part in ("text_encoder", "text_encoder_2"):
        if part in model.parts:
            table = model.parts[part]["embeddings.token_embedding.weight"]
            model.parts[part]["embeddings.token_embedding.weight"] = table[:WORDS].clone()
            model.configs[part]["vocab_size"] = WORDS
    return model


def related(root: Path, family: str, names: str = "abc", channels: int = 4, all_words: bool = False) -> dict[str, Path]:
    """Files A, B, C: one narrow model, and others that differ from it by noise."""
    tiny.write_folder(root / f"{family}-{channels}", family, channels)
    made = {}
    for i, name in enumerate(names):
        model = checkpoint.read(root / f"{family}-{channels}")
        model = model if all_words else with_few_words(model)
        generator = torch.Generator().manual_seed(i)
        if i:
            for named in model.parts.values():
                for key, tensor in named.items():
                    named[key] = tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        made[name] = root / f"{family}-{channels}-{name}.safetensors"
        save.write_single_file(model, made[name], torch.float16 if name == "c" else None)
    return made


def flat(model: Checkpoint) -> dict[tuple[str, str], Tensor]:
    return {(part, name): tensor for part, named in model.parts.items() for name, tensor in named.items()}


def numbers(path: Path) -> dict[tuple[str, str], Tensor]:
    """Every tensor of a file in float64."""
    return {key: tensor.double() for key, tensor in flat(checkpoint.read(path)).items()}
