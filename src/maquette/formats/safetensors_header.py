"""Headers of safetensors files, checked, and hashes of files: all that can be told without torch.

Everything in the header is checked before a byte of the body is mapped, so a hostile file costs no memory.
"""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MaquetteError
from ..files import open_regular
from ..limits import HEADER_BYTES, NAME_LENGTH, TENSOR_NUMBERS, TENSOR_SIDES, TENSORS
from ..parsing import parse_json
from .pictures import kind_of

SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
"""Bytes of a number, by the names of types in files."""
TYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
"""What torch calls them."""
_BLOCK = 1 << 18  # bytes that are read at a time for a hash; the cache of a processor's core holds them


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: its type as the file calls it, shape, and the byte range [start, end) of the body."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """A checked header. `body` is the file offset at which the tensors begin."""

    path: Path
    metadata: dict[str, str]
    tensors: dict[str, TensorInfo]
    body: int
    file_size: int


def read_header(path: str | Path) -> Header:
    """Read and check the header: lengths, JSON, dtypes, shape x size, and that the ranges tile the body exactly.

    Raises MaquetteError naming the file and the fault.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(16)
            _check_start(path, start, size)
            file.seek(8)
            raw = file.read(int.from_bytes(start[:8], "little"))
    except OSError as error:
        raise MaquetteError(f"{path} cannot be read: {error.strerror or error}.") from error
    body = 8 + len(raw)
    entries = _parse_header(path, raw)
    metadata = _check_metadata(path, entries.pop("__metadata__", {}))
    tensors = {name: _check_tensor(path, name, entry) for name, entry in entries.items()}
    _check_tiling(path, tensors, size - body)
    return Header(path, metadata, tensors, body, size)


def read_metadata(path: str | Path) -> dict[str, str]:
    """The free-text metadata of the header; empty when there is none."""
    return read_header(path).metadata


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins with these 9 bytes is a PyTorch pickle.

    The ninth byte decides: a safetensors header of 128 or 640 bytes begins as a pickle does, but then comes its "{".
    """
    return start[8:9] != b"{" and (start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5"))


def body_sha256(path: str | Path) -> str:
    """sha256 of the bytes after the header: what trainers write as `sshs_model_hash` and Civitai calls AutoV3."""
    header = read_header(path)
    return file_sha256(header.path, start=header.body)


def file_sha256(path: str | Path, start: int = 0, length: int | None = None) -> str:
    """sha256, as hex, of a file or of `length` bytes of it from `start`."""
    digest, buffer = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open_regular(path) as file:
        file.seek(start)
        left = math.inf if length is None else length
        while left > 0 and (count := file.readinto(buffer[: int(min(_BLOCK, left))])):  # type: ignore[attr-defined]
            digest.update(buffer[:count])
            left -= count
    return digest.hexdigest()


def _check_start(path: Path, start: bytes, size: int) -> None:
    if size == 0:
        raise MaquetteError(f"{path} is empty (0 bytes); download or copy it again.")
    if size < 8:
        raise MaquetteError(f"{path} is not a safetensors file: it has only {size} bytes.")
    if is_pickle(start):
        raise MaquetteError(f"{path} is a PyTorch pickle with the wrong name; rename it to .ckpt, or convert it.")
    if start.startswith(b"version "):
        raise MaquetteError(f"{path} is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`.")
    if start[8:9] != b"{" and (kind := kind_of(start)):
        raise MaquetteError(f"{path} is a picture ({kind}), not a file of weights.")
    length = int.from_bytes(start[:8], "little")
    if start.isascii() and start.lstrip()[:1].isascii() and length > HEADER_BYTES:
        raise MaquetteError(
            f"{path} is not a safetensors file: it looks like text. If it is to be a model, it is a saved web page: "
            "download it again."
        )
    if length > HEADER_BYTES:
        raise MaquetteError(f"{path} is not a safetensors file: its header would be {length} bytes long.")
    if length + 8 > size:
        raise MaquetteError(
            f"{path} is truncated or corrupted: its header needs {length + 8} bytes, "
            f"the file has {size}; download it again."
        )


def _parse_header(path: Path, raw: bytes) -> dict[str, Any]:
    name = f"{path} is corrupted: its header"
    if raw.count(b'"dtype"') > TENSORS:
        raise MaquetteError(f"{name} describes more than {TENSORS} tensors.")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MaquetteError(f"{name} is not valid JSON: byte {error.start} is not UTF-8.") from error
    entries = parse_json(text, name, unique=True)
    if not isinstance(entries, dict):
        raise MaquetteError(f"{name} is not a table of tensors.")
    return entries


def _check_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise MaquetteError(f"{path} is corrupted: its metadata is not a table of texts.")
    return metadata


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _check_tensor(path: Path, name: str, entry: Any) -> TensorInfo:
    where = f"{path} is corrupted: tensor {name[:120]!r}"
    if len(name) > NAME_LENGTH:
        raise MaquetteError(f"{where} … has a name of {len(name)} characters.")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise MaquetteError(f"{where} is not described by dtype, shape and data_offsets.")
    dtype = entry["dtype"]
    if not isinstance(dtype, str) or dtype not in SIZES:
        raise MaquetteError(f"{where} has the unknown type {str(dtype)[:40]!r}.")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not isinstance(shape, list) or len(shape) > TENSOR_SIDES or not all(map(_is_count, shape)):
        raise MaquetteError(f"{where} has the impossible shape {str(shape)[:80]}.")
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(map(_is_count, offsets))
        or offsets[0] > offsets[1]
    ):
        raise MaquetteError(f"{where} has the impossible offsets {str(offsets)[:80]}.")
    if math.prod(max(1, side) for side in shape) > TENSOR_NUMBERS:
        raise MaquetteError(f"{where} has the impossible shape {str(shape)[:80]}.")
    needed = math.prod(shape) * SIZES[dtype]
    if offsets[1] - offsets[0] != needed:
        raise MaquetteError(f"{where} of shape {shape} needs {needed} bytes but is given {offsets[1] - offsets[0]}.")
    return TensorInfo(dtype, tuple(shape), offsets[0], offsets[1])


def _check_tiling(path: Path, tensors: dict[str, TensorInfo], body: int) -> None:
    """The ranges must cover the body without overlap or hole; a short body is the commonest fault (broken download)."""
    expected = max((info.end for info in tensors.values()), default=0)
    if expected > body:
        raise MaquetteError(
            f"{path} is truncated: its tensors need {expected} bytes but only {body} are there; "
            f"download or copy it again."
        )
    position = 0
    for name, info in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if info.start != position:
            fault = "overlaps another tensor" if info.start < position else "leaves a hole before it"
            raise MaquetteError(f"{path} is corrupted: tensor {name[:120]!r} {fault}.")
        position = info.end
    if expected < body:
        raise MaquetteError(f"{path} is corrupted: {body - expected} bytes follow the last tensor.")
