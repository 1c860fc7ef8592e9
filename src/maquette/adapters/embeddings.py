"""Textual inversion embeddings: a few vectors per text encoder, in any of the four forms that programs write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MaquetteError
from ..formats import tensor_files
from .parts import is_finite

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BUNDLE = "bundle_emb."  # how A1111 and Kohya's relatives name an embedding inside a LoRA file
_FAMILIES = {768: "sd1", 1024: "sd2"}


@dataclass(frozen=True)
class Embedding:
    """name: the word that calls it. vectors: one (n, D) tensor per text encoder, the same n in each.

    family: "sd1", "sd2", "sdxl" or "unknown" (a width that no published model has).
    """

    name: str
    vectors: tuple[Tensor, ...]
    family: str

    def __len__(self) -> int:
        return len(self.vectors[0])


def load(path: str | Path, name: str | None = None) -> Embedding:
    """Read an embedding: `emb_params` (Kohya), `string_to_param` (A1111), `{token: tensor}` (diffusers), `clip_l` and
    `clip_g` (SDXL). The name is the file's, as in A1111, unless diffusers' form gives a token of its own; `name` wins.

    Raises MaquetteError when the file is something else.
    """
    path = Path(path)
    tensors = tensor_files.read(path).tensors
    return read(tensors, path.stem, name, str(path))


def read(tensors: Mapping[str, Tensor], stem: str, called: str | None, path: str) -> Embedding:
    """From the tensors of a file or of a bundle; see `load`."""
    name = stem
    if {"clip_l", "clip_g"} <= tensors.keys():
        found = [tensors["clip_l"], tensors["clip_g"]]
    elif "emb_params" in tensors:
        found = [tensors["emb_params"]]
    else:
        params = [tensor for key, tensor in tensors.items() if key.startswith("string_to_param.")]
        found = params or list(tensors.values())
        if not params and len(tensors) == 1:
            name = next(iter(tensors))
    vectors = tuple(tensor[None] if tensor.ndim == 1 else tensor for tensor in found)
    expected = 2 if "clip_g" in tensors else 1
    if len(vectors) != expected or not all(_is_table(v) for v in vectors):
        raise MaquetteError(f"{path} is not a textual inversion embedding.")
    if not all(is_finite(vector) for vector in vectors):
        raise MaquetteError(f"{path} holds NaN or infinite numbers; the embedding is damaged, use another copy.")
    if len({len(v) for v in vectors}) != 1:
        raise MaquetteError(f"{path} has a different number of vectors for each text encoder.")
    family = "sdxl" if expected == 2 else _FAMILIES.get(vectors[0].shape[1], "unknown")
    return Embedding(called or name, vectors, family)


def unbundled(tensors: Mapping[str, Tensor], source: str) -> tuple[list[Embedding], dict[str, Tensor]]:
    """The embeddings among the tensors of a LoRA file, and the others."""
    bundles: dict[str, dict[str, Tensor]] = {}
    rest = {}
    for key, tensor in tensors.items():
        if key.startswith(BUNDLE):
            name, _, part = key.removeprefix(BUNDLE).partition(".")
            bundles.setdefault(name, {})[part] = tensor
        else:
            rest[key] = tensor
    return [read(parts, name, name, source) for name, parts in bundles.items()], rest


def bundled(embedding: Embedding) -> dict[str, Tensor]:
    """The keys that A1111 reads: a name without dots, then `string_to_param.*`, or SDXL's two parts."""
    parts = ("string_to_param.*",) if len(embedding.vectors) == 1 else ("clip_l", "clip_g")
    name = embedding.name.replace(".", "_")
    return {f"{BUNDLE}{name}.{part}": t for part, t in zip(parts, embedding.vectors, strict=True)}


def _is_table(vectors: Tensor) -> bool:
    return vectors.ndim == 2 and vectors.is_floating_point() and 0 < len(vectors) <= 75 and vectors.shape[1] > 0


def save(
    embedding: Embedding,
    path: str | Path,
    form: str = "a1111",
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a .safetensors file, by default in float32. form "a1111": `emb_params` as Kohya, A1111 and ComfyUI know it,
    SDXL's `clip_l` and `clip_g`; "diffusers": the name as the only key (its readers know SDXL's form as well).
    """
    if len(embedding.vectors) == 2:
        tensors = dict(zip(("clip_l", "clip_g"), embedding.vectors, strict=True))
    else:
        tensors = {embedding.name if form == "diffusers" else "emb_params": embedding.vectors[0]}
    import torch

    from ..formats import safetensors

    cast = {key: tensor.to(dtype or torch.float32).contiguous() for key, tensor in tensors.items()}
    safetensors.save(cast, path, dict(metadata or {}))
