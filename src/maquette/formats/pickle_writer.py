"""A PyTorch file (.ckpt) written tensor by tensor, as `torch.save` writes it: an uncompressed zip archive of a pickle,
which says what the tensors are, and the raw numbers of each. `torch.load(weights_only=True)` reads it.

Where everything will lie is known before anything is computed, so that several threads can fill the places.
"""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..errors import MaquetteError
from .safetensors import DTYPE_NAMES
from .streaming import Entry, filled, run_all

_STORAGES = {
    torch.float64: "DoubleStorage",
    torch.float32: "FloatStorage",
    torch.float16: "HalfStorage",
    torch.bfloat16: "BFloat16Storage",
    torch.int64: "LongStorage",
    torch.int32: "IntStorage",
    torch.int16: "ShortStorage",
    torch.int8: "CharStorage",
    torch.uint8: "ByteStorage",
    torch.bool: "BoolStorage",
}
_ALIGNMENT = 64
_ROOT = "archive/"
_MANY = 0xFFFFFFFF  # in a field of 32 bits: the number stands in the 64-bit one
_FAR = _MANY  # offsets from here on do not fit 32 bits


@dataclass
class _Record:
    """A file within the archive: where it begins, its bytes or the entry that gives them, and their checksum."""

    name: str
    size: int
    content: bytes | Entry
    offset: int = 0
    checksum: int = 0

    def local(self) -> bytes:
        """The header before the content, padded so that the content begins at a multiple of 64."""
        name = self.name.encode()
        plain = self.offset + 30 + len(name) + 4
        padding = -plain % _ALIGNMENT
        fields = (0x04034B50, 20, 0x0800, 0, 0, 0x21, self.checksum, self.size, self.size, len(name), 4 + padding)
        return struct.pack("<IHHHHHIIIHH", *fields) + name + struct.pack("<2sH", b"FB", padding) + b"Z" * padding

    def central(self) -> bytes:
        """The entry in the archive's list."""
        name, far = self.name.encode(), self.offset >= _FAR
        extra = struct.pack("<HHQ", 1, 8, self.offset) if far else b""
        offset = _MANY if far else self.offset
        fields = (0x02014B50, 45, 45, 0x0800, 0, 0, 0x21, self.checksum, self.size, self.size, len(name), len(extra))
        return struct.pack("<IHHHHHHIIIHHHHHII", *fields, 0, 0, 0, 0, offset) + name + extra


def write(
    entries: Mapping[str, Entry],
    path: str | Path,
    metadata: Mapping[str, str],
    finish: Callable[[], Mapping[str, str]] | None = None,
    beside: Sequence[Callable[[], None]] = (),
    threads: int = 1,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Write {**metadata, "state_dict": tensors} as a PyTorch file; arguments and errors as of `streaming.write`."""
    path = Path(path)
    for name, entry in entries.items():
        if entry.dtype not in _STORAGES:
            dtype = DTYPE_NAMES.get(entry.dtype, str(entry.dtype))
            raise MaquetteError(f"{path}: {name} is of the type {dtype}, which only .safetensors files hold.")
        if entry.nbytes >= _MANY:
            raise MaquetteError(f"{path}: {name} is too large for a .ckpt file; write a .safetensors file.")
    index = _index(entries, metadata)
    records = [_Record(f"{_ROOT}data.pkl", len(index), index), _Record(f"{_ROOT}byteorder", 6, b"little")]
    records += [_Record(f"{_ROOT}data/{i}", entry.nbytes, entry) for i, entry in enumerate(entries.values())]
    records.append(_Record(f"{_ROOT}version", 2, b"3\n"))
    size = 0
    for record in records:
        record.offset = size
        size += len(record.local()) + record.size
    end = _end(records, size)
    with filled(path, size + len(end), on_bytes) as file:

        def put(record: _Record) -> None:
            place = record.offset + len(record.local())
            if isinstance(record.content, Entry):
                record.checksum = file.put(record.content, place, record.name, zlib.crc32)

        run_all([partial(put, record) for record in records], threads, beside)
        final = _index(entries, finish()) if finish else index
        if len(final) != len(index):
            raise ValueError("the metadata changed its length")
        records[0].content = final
        for record in records:
            if isinstance(record.content, bytes):
                record.checksum = zlib.crc32(record.content)
                file.write(record.content, record.offset + len(record.local()))
            file.write(record.local(), record.offset)
        file.write(_end(records, size), size)


def _end(records: Sequence[_Record], start: int) -> bytes:
    """The archive's list, and where it is, in the old and in the 64-bit form."""
    listed = b"".join(record.central() for record in records)
    count, where = len(records), start + len(listed)
    long = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, len(listed), start)
    long += struct.pack("<IIQI", 0x07064B50, 0, where, 1)
    few, far = min(count, 0xFFFF), _MANY if start >= _FAR else start
    return listed + long + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, few, few, len(listed), far, 0)


class _Storage:
    """Stands for the numbers of a tensor: written as torch's name of a storage."""

    def __init__(self, key: str, entry: Entry) -> None:
        self.arguments = (
            "storage",
            getattr(torch, _STORAGES[entry.dtype]),
            key,
            "cpu",
            entry.nbytes // entry.dtype.itemsize,
        )


class _Tensor:
    """Written as the call that makes a tensor of a storage."""

    def __init__(self, key: str, entry: Entry) -> None:
        strides, step = [], 1
        for side in reversed(entry.shape):
            strides.append(step)
            step *= side
        hooks: OrderedDict[str, Any] = OrderedDict()
        self.arguments = (_Storage(key, entry), 0, entry.shape, tuple(reversed(strides)), False, hooks)

    def __reduce__(self) -> Any:
        from torch import _utils

        return _utils._rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.arguments if isinstance(value, _Storage) else None


def _index(entries: Mapping[str, Entry], metadata: Mapping[str, str]) -> bytes:
    tensors = {name: _Tensor(str(i), entry) for i, (name, entry) in enumerate(entries.items())}
    raw = io.BytesIO()
    _Pickler(raw, protocol=2).dump({**metadata, "state_dict": tensors})
    return raw.getvalue()
