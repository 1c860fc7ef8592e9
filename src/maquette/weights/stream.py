"""Checkpoints as named tensors that stay on the disk until they are used.

`open_model` reads names and shapes only: a model's tensors are memory-mapped, whatever its container (.safetensors,
.ckpt, diffusers folder) and size. `exact` turns one into numbers to calculate with, and says which tensor of which
file holds none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ..adapters.parts import is_finite
from ..errors import MaquetteError
from ..families import checkpoint, hub
from ..families.checkpoint import Checkpoint
from ..families.layers import Layer, named_layers
from ..families.pocket import POCKET, WEIGHTS
from ..formats.streaming import TILE

Name = tuple[str, str]  # part ("unet", "vae", "text_encoder", "text_encoder_2") and the tensor's name in it


def open_model(path: str | Path) -> Checkpoint:
    """A checkpoint's names, shapes and memory-mapped tensors, from a file, a diffusers folder, "pocket" or
    `hf:owner/name`.

    Raises MaquetteError for what is missing, broken or no whole model.
    """
    if hub.is_hub_id(path):
        model = checkpoint.read(hub.download(str(path)))
        model.source = str(path)
        return model
    if str(path) == "pocket":
        model = checkpoint.read_folder(WEIGHTS, POCKET)
        model.source = "pocket"
        return model
    return checkpoint.read(path)


def tensors(model: Checkpoint) -> dict[Name, Tensor]:
    """Every tensor of a model's parts, memory-mapped, in the model's own precision."""
    return {(part, name): tensor for part, named in model.parts.items() for name, tensor in named.items()}


def layers(model: Checkpoint, foreign: bool = False) -> dict[str, Layer]:
    """Name of a module -> (part, path): the weight is `model.parts[part][path + ".weight"]`, the bias, where there is
    one, `path + ".bias"`. foreign: see `named_layers`.
    """
    return named_layers(model.spec.name, model.parts, foreign)


def weights(model: Checkpoint) -> Callable[[str], Tensor | None]:
    """Name of a module -> the layer's weight in float32, None for what is no layer of the model."""
    known = layers(model, foreign=True)

    def weight_of(name: str) -> Tensor | None:
        part, path = known.get(name, ("", ""))
        return exact(model, (part, f"{path}.weight")) if part else None

    return weight_of


def exact(model: Checkpoint, name: Name, dtype: torch.dtype = torch.float32) -> Tensor:
    """One tensor in the precision to calculate with. Raises MaquetteError, naming it, when it holds NaN or infinity."""
    part, own = name
    numbers = model.parts[part][own].to(dtype)
    require_finite(numbers, model.source, name)
    return numbers


def difference(after: Checkpoint, before: Checkpoint, name: Name) -> tuple[Tensor, float]:
    """One tensor's change in float32 and the sum of its squares, of two tensors of one shape.

    Raises MaquetteError, naming file and tensor, where one of them holds NaN or infinity.
    """
    change = torch.empty(after.parts[name[0]][name[1]].shape)
    return change, change_energy(after, before, name, torch.split(change.reshape(-1), TILE))


def change_energy(after: Checkpoint, before: Checkpoint, name: Name, tiles: Iterable[Tensor] | None = None) -> float:
    """The same sum of squares. tiles: where the change goes, in pieces of TILE numbers; by default it is not kept."""
    one, other = (torch.split(model.parts[name[0]][name[1]].reshape(-1), TILE) for model in (after, before))
    squared, scratch = [], torch.empty(TILE)
    for x, y, tile in zip(one, other, tiles or (scratch[: len(x)] for x in one), strict=True):
        tile.copy_(x).sub_(y.float() if y.dtype.itemsize == 1 else y)  # PyTorch does not subtract 8-bit floats
        squared.append(float(torch.dot(tile, tile)))
    energy = math.fsum(squared) if all(map(math.isfinite, squared)) else math.inf
    if energy == math.inf:  # of numbers whose squares float32 cannot hold, unless these raise
        energy = float((exact(after, name).double() - exact(before, name).double()).square().sum())
    return energy


def require_finite(numbers: Tensor, source: str, name: Name) -> None:
    """Raise MaquetteError naming file, part and tensor for numbers that are NaN or infinite."""
    if not (bool(torch.isfinite(numbers.sum())) or is_finite(numbers)):
        raise MaquetteError(
            f"{source} holds NaN or infinite numbers ({name[0]}: {name[1]}); the file is damaged or its training "
            "failed, take another copy."
        )


def within(numbers: Tensor, most: float) -> bool:
    """Whether every number lies between -most and most; not so for NaN. Their length as a vector tells it at once in
    all but the rarest cases, at a quarter of the cost of looking for the largest.
    """
    flat = numbers.reshape(-1)
    if numbers.numel() == 0 or float(torch.dot(flat, flat)) <= min(most * most, 3e38):  # of float32, no infinity
        return True
    low, high = flat.aminmax()
    return float(low) >= -most and float(high) <= most


def require_storable(numbers: Tensor, source: str, name: Name, dtype: torch.dtype) -> None:
    """Raise MaquetteError for numbers beyond what the file's type holds: they would become infinite."""
    if not dtype.is_floating_point or dtype.itemsize >= 4 or numbers.numel() == 0:
        return
    most = torch.finfo(dtype).max
    if not within(numbers, most):
        shown = str(dtype).removeprefix("torch.")
        raise MaquetteError(
            f"{source}: {name[0]}: {name[1]} would hold numbers beyond {most:g}, the most in {shown}; write it in a "
            "wider type with --dtype."
        )
