"""Safetensors files: memory-mapped tensors, and a writer whose bytes depend on nothing but its input.

Layout: 8 bytes little-endian length n, n bytes of JSON header, then the body that the header's offsets refer to.
`safetensors_header` reads and checks the header.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..files import atomic_writer
from .mapping import mapped
from .safetensors_header import (
    TYPES,
    Header,
    TensorInfo,
    body_sha256,
    file_sha256,
    is_pickle,
    read_header,
    read_metadata,
)

__all__ = [
    "DTYPES",
    "DTYPE_NAMES",
    "Header",
    "TensorInfo",
    "body_sha256",
    "file_sha256",
    "file_size",
    "head",
    "is_pickle",
    "layout",
    "load",
    "read_header",
    "read_metadata",
    "save",
    "tensor_bytes",
    "tensors_sha256",
]

DTYPES: dict[str, torch.dtype] = {name: getattr(torch, called) for name, called in TYPES.items()}
DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}
# The order in which the reference library lays tensors out: wider types first, so that everything is aligned.
_LAYOUT = ["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "I16", "U16", "F16", "BF16"]
_LAYOUT += ["I32", "U32", "F32", "C64", "F64", "I64", "U64"]


def load(path: str | Path, header: Header | None = None) -> dict[str, Tensor]:
    """All tensors, memory-mapped copy-on-write: pages are read when touched, and the file itself is never changed."""
    header = header or read_header(path)
    if header.file_size == header.body:
        return {name: torch.empty(info.shape, dtype=DTYPES[info.dtype]) for name, info in header.tensors.items()}
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


def tensors_sha256(tensors: Mapping[str, Tensor], dtype: torch.dtype | Mapping[str, torch.dtype] | None = None) -> str:
    """The `body_sha256` that a file saved from these tensors will have; metadata does not enter."""
    digest = hashlib.sha256()
    stored, names = _layout(Path("the file"), tensors, dtype)
    for name in names:
        digest.update(tensor_bytes(tensors[name].to(stored[name])))
    return digest.hexdigest()


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The raw little-endian bytes of a tensor on any device, without a copy where it is contiguous on the CPU."""
    whole = tensor.detach().cpu().contiguous()
    flat = whole.as_strided((whole.numel(),), (1,))  # of a single number any stride counts as contiguous
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


def _view(storage: Any, offset: int, info: TensorInfo) -> Tensor:
    dtype = DTYPES[info.dtype]
    if info.numel == 0:
        return torch.empty(info.shape, dtype=dtype)
    if offset % dtype.itemsize:  # a foreign writer packed an odd number of bytes before it: copy to align
        raw = _on_storage(torch.uint8, storage, offset, (info.end - info.start,))
        return raw.clone().view(dtype).reshape(info.shape)
    return _on_storage(dtype, storage, offset // dtype.itemsize, info.shape)


def _on_storage(dtype: torch.dtype, storage: Any, offset: int, shape: Sequence[int]) -> Tensor:
    empty: Any = torch.empty(0, dtype=dtype)
    tensor: Tensor = empty.set_(storage, offset, shape)
    return tensor
