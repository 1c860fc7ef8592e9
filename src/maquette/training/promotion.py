"""The chosen checkpoint becomes the file that is found: NAME.safetensors with side-car and preview."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ..adapters import embeddings
from ..adapters import reading as adapters
from ..evaluation.folding import folded
from ..files import atomic_writer, open_regular
from ..formats import safetensors
from ..methods import METHODS
from ..report.samples import drawn
from ..run_folder import RunFolder
from .checkpoint_writer import write_sidecar

if TYPE_CHECKING:
    from torch import Tensor

    from ..evaluation.choice import Choice
    from ..families.base import BaseModel
    from .checkpoint_writer import CheckpointWriter


def promote(writer: CheckpointWriter, folder: RunFolder, choice: Choice, fold: bool = False) -> Path:
    """Write the run's own file from its chosen checkpoint, the side-car with the chosen weight, and the first sample
    picture of that step as preview, where it has some.

    fold: a LoRA's weight is folded in, and the side-car says 1. Raises MaquetteError where it cannot be.
    """
    source = folder.checkpoints()[choice.step]  # by what lies there: the folder may have been renamed
    target = folder.chosen or folder.final
    if METHODS[writer.config.method].product == "model":
        _copy(source, target)
    else:
        writer.save(_state(writer, source, choice.weight if fold else 1.0), target, choice.step)
    writer.sidecar(target, 1.0 if fold else choice.weight)
    if drawn(samples := folder.samples(choice.step)):
        _copy(samples / "0.png", target.with_suffix(".png"))
    return target


def promote_file(
    source: Path, out: Path, choice: Choice, fold: bool, base: BaseModel, subject: str, photos: int
) -> Path:
    """The same for a file of another trainer: a copy in `out`, its side-car beside it; the file itself stays."""
    target = out / f"{out.name}.safetensors"
    if fold and choice.weight != 1.0:
        folded(adapters.load(source), choice.weight).save(target, "kohya")
    else:
        _copy(source, target)
    weight = 1.0 if fold else choice.weight
    write_sidecar(target, base, f"{source.name}, chosen by maquette", subject, weight, f"{photos} photos")
    return target


def _state(writer: CheckpointWriter, source: Path, weight: float) -> dict[str, Tensor]:
    """What the run's writer writes again under another name."""
    if METHODS[writer.config.method].product == "embedding":
        vectors = embeddings.load(source, name=writer.subject).vectors
        names = ("emb_params",) if len(vectors) == 1 else ("clip_l", "clip_g")
        return dict(zip(names, vectors, strict=True))
    if weight == 1.0:
        return safetensors.load(source)
    return folded(adapters.load(source), weight).state_dict()


def _copy(source: Path, target: Path) -> None:
    with open_regular(source) as opened, atomic_writer(target) as file:
        shutil.copyfileobj(opened, file)
