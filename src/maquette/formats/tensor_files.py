"""Any file of tensors by its content: safetensors or PyTorch pickle, whatever its name says."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import open_regular
from . import numbers, safetensors_header

if TYPE_CHECKING:
    from torch import Tensor

# How other files begin that end up among models; the length of a safetensors header begins with none of these.
_OTHERS = (
    (b"%PDF-", "a PDF"),
    (b"GGUF", "a GGUF file (a quantised model)"),
    (b"\x1f\x8b\x08", "a gzip archive; unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive; unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive; unpack it"),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)"),
    (b"ID3\x03\0", "a sound"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"\x7fELF\2", "a program"),
)


@dataclass
class TensorFile:
    """Flat names -> tensors (memory-mapped where the format allows it), and the file's metadata."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    pickled: bool = False


def read(path: str | Path) -> TensorFile:
    """Read a file of tensors. Raises MaquetteError naming the fault; never runs code that the file contains."""
    path = Path(path)
    if _is_pickle(path):
        from . import pickles

        content = pickles.load(path)
        return TensorFile(content.tensors, content.metadata, pickled=True)
    from . import safetensors

    header = safetensors_header.read_header(path)
    return TensorFile(safetensors.load(path, header), header.metadata)


def look(path: str | Path) -> TensorFile:
    """As `read`, without torch where the file is safetensors: its tensors are `numbers.Numbers`, good for looking."""
    path = Path(path)
    if _is_pickle(path):
        return read(path)
    header = safetensors_header.read_header(path)
    tensors: dict[str, Any] = dict(numbers.look(header))
    return TensorFile(tensors, header.metadata)


def _is_pickle(path: Path) -> bool:
    """Raises MaquetteError for what is no file of tensors by its beginning."""
    with open_regular(path) as file:
        start = file.read(9)
    other = next((what for mark, what in _OTHERS if start.startswith(mark)), None)
    if other is not None:
        raise MaquetteError(f"{path} is {other}, not a file of weights (.safetensors, .ckpt, .pt or .bin).")
    return safetensors_header.is_pickle(start)
