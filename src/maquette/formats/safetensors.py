"""Safetensors files: a checked header, memory-mapped tensors, and a writer whose bytes depend on nothing but its input.

Layout: 8 bytes little-endian length n, n bytes of JSON header, then the body that the header's offsets refer to.
Everything in the header is checked before a byte of the body is mapped, so a hostile file costs no memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..files import atomic_writer, open_regular, parse_json
from ..limits import HEADER_BYTES, NAME_LENGTH, TENSOR_NUMBERS, TENSOR_SIDES, TENSORS
from .mapping import mapped
from .pictures import kind_of

DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
_BLOCK = 1 << 18  # bytes that are read at a time for a hash; the cache of a processor's core holds them
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The order in which the reference library lays tensors out: wider types first, so that everything is aligned.
_LAYOUT = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16"]
_LAYOUT += ["I32", "U32", "F32", "C64", "F64", "I64", "U64"]


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies: dtype, shape, and the byte range [start, end) of the body."""

    dtype: torch.dtype
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


def load(path: str | Path, header: Header | None = None) -> dict[str, Tensor]:
    """All tensors, memory-mapped copy-on-write: pages are read when touched, and the file itself is never changed."""
    header = header or read_header(path)
    if header.file_size == header.body:
        return {name: torch.empty(info.shape, dtype=info.dtype) for name, info in header.tensors.items()}
    try:
        storage = mapped(header.path, header.file_size).untyped_storage()
    except (OSError, ValueError) as error:  # ValueError: it became shorter since
        raise MaquetteError(f"{header.path} cannot be read: {error}.") from error
    return {name: _view(storage, header.body + info.start, info) for name, info in header.tensors.items()}


def save(
    tensors: Mapping[str, Tensor],
    path: str | Path,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
) -> None:
    """Write atomically (temporary file, fsync, rename) and deterministically: same tensors and metadata, same bytes.

    The body is laid out as the reference library does. With `dtype` (one, or one for some of the names),
    floating-point tensors are cast one at a time while they are written, so that a memory-mapped model is converted
    without ever being in memory as a whole.
    """
    path = Path(path)
    stored, names = _layout(path, tensors, dtype)
    raw = head({name: (stored[name], tuple(tensors[name].shape)) for name in names}, metadata)
    with atomic_writer(path) as file:
        file.write(raw)
        for name in names:
            file.write(tensor_bytes(tensors[name].to(stored[name])))


def file_size(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
) -> int:
    """Bytes of the file that `save` writes; the tensors may be on the meta device."""
    stored, names = _layout(Path("the file"), tensors, dtype)
    raw = head({name: (stored[name], tuple(tensors[name].shape)) for name in names}, metadata)
    return len(raw) + sum(tensors[name].numel() * stored[name].itemsize for name in names)


def head(
    described: Mapping[str, tuple[torch.dtype, tuple[int, ...]]], metadata: Mapping[str, str] | None, least: int = 0
) -> bytes:
    """The bytes before the tensors: type and shape of each, in the order in which they follow; see `layout`. least:
    so many bytes, filled with blanks.
    """
    entries: dict[str, Any] = {}
    if metadata:
        entries["__metadata__"] = {str(key): str(metadata[key]) for key in sorted(metadata)}
    offset = 0
    for name, (dtype, shape) in described.items():
        end = offset + math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    raw = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * max(least - 8 - len(raw), -len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw


def layout(stored: Mapping[str, torch.dtype]) -> list[str]:
    """Names in the order in which the reference library lays tensors of these types out."""
    return sorted(stored, key=lambda name: (-_LAYOUT.index(DTYPE_NAMES[stored[name]]), name))


def is_pickle(start: bytes) -> bool:
    """Whether a file that begins with these 9 bytes is a PyTorch pickle.

    The ninth byte decides: a safetensors header of 128 or 640 bytes begins as a pickle does, but then comes its "{".
    """
    return start[8:9] != b"{" and (start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5"))


def body_sha256(path: str | Path) -> str:
    """sha256 of the bytes after the header: what trainers write as `sshs_model_hash` and Civitai calls AutoV3."""
    header = read_header(path)
    return file_sha256(header.path, start=header.body)


def tensors_sha256(tensors: Mapping[str, Tensor], dtype: torch.dtype | Mapping[str, torch.dtype] | None = None) -> str:
    """The `body_sha256` that a file saved from these tensors will have; metadata does not enter."""
    digest = hashlib.sha256()
    stored, names = _layout(Path("the file"), tensors, dtype)
    for name in names:
        digest.update(tensor_bytes(tensors[name].to(stored[name])))
    return digest.hexdigest()


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


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw little-endian bytes of a tensor on any device, without a copy where it is contiguous on the CPU."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _layout(
    path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype | Mapping[str, torch.dtype] | None
) -> tuple[dict[str, torch.dtype], list[str]]:
    """Type under which each tensor is stored, and the order in which they lie in the body."""
    wanted = dtype if isinstance(dtype, Mapping) else dict.fromkeys(tensors, dtype)
    stored = {name: _stored_dtype(path, name, tensor, wanted.get(name)) for name, tensor in tensors.items()}
    return stored, layout(stored)


def _stored_dtype(path: Path, name: str, tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    stored = dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
    if stored not in DTYPE_NAMES:
        raise MaquetteError(f"{path}: tensor {name} has the type {stored}, which safetensors files cannot hold.")
    return stored


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
    dtype = DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise MaquetteError(f"{where} has the unknown type {str(entry['dtype'])[:40]!r}.")
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
    needed = math.prod(shape) * dtype.itemsize
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


def _view(storage: Any, offset: int, info: TensorInfo) -> Tensor:
    if info.numel == 0:
        return torch.empty(info.shape, dtype=info.dtype)
    if offset % info.dtype.itemsize:  # a foreign writer packed an odd number of bytes before it: copy to align
        raw = _on_storage(torch.uint8, storage, offset, (info.end - info.start,))
        return raw.clone().view(info.dtype).reshape(info.shape)
    return _on_storage(info.dtype, storage, offset // info.dtype.itemsize, info.shape)


def _on_storage(dtype: torch.dtype, storage: Any, offset: int, shape: Sequence[int]) -> Tensor:
    empty: Any = torch.empty(0, dtype=dtype)
    tensor: Tensor = empty.set_(storage, offset, shape)
    return tensor
