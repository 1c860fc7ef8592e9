"""Any file of tensors by its content: safetensors or PyTorch pickle, whatever its name says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from ..files import open_regular
from . import pickles, safetensors


@dataclass
class TensorFile:
    """Flat names -> tensors (memory-mapped where the format allows it), and the file's metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    pickled: bool = False


def read(path: str | Path) -> TensorFile:
    """Read a file of tensors. Raises MaquetteError naming the fault; never runs code that the file contains."""
    path = Path(path)
    with open_regular(path) as file:
        start = file.read(9)
    if safetensors.is_pickle(start):
        content = pickles.load(path)
        return TensorFile(content.tensors, content.metadata, pickled=True)
    header = safetensors.read_header(path)
    return TensorFile(safetensors.load(path, header), header.metadata)
