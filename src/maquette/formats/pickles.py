"""PyTorch pickles (.ckpt, .pt, .bin) read without unpickling: `pickle_machine` builds recipes, this module finds
their data.

Tensor data is memory-mapped where it lies in the (uncompressed) zip archive; the format before PyTorch 1.6 is read too.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from ..files import open_regular
from ..limits import ARCHIVE_INDEX_BYTES, NAME_LENGTH, PICKLE_BYTES, PICKLE_DEPTH, PICKLE_STEPS, SHARED_DATA, TENSORS
from .mapping import mapped
from .pickle_machine import Machine, Refused, Storage, TensorRecipe

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ALIGNMENT = 16  # bytes; of the widest type, complex of two float64
_END_OF_ARCHIVE = 70_000  # bytes in which the end of a zip archive lies: a comment of 65,535 and two records
_METADATA_ENTRIES, _METADATA_LENGTH = 10_000, 10_000


@dataclass
class PickleFile:
    """tensors under dotted names (`state_dict` and such levels removed), and the texts and numbers beside them."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)


def load(path: str | Path) -> PickleFile:
    """Tensors of a PyTorch file. Raises MaquetteError naming the offending global or fault; nothing in the file is
    run.
    """
    path = Path(path)
    try:
        with open_regular(path) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            read = _read_zip if file.read(4) == b"PK\x03\x04" else _read_legacy
            root, storage = read(path, file, size)
            return _Flattening(storage, SHARED_DATA * size).of(root)
    except Refused as error:
        raise MaquetteError(f"{path} was not opened: {error}.") from error
    except OSError as error:
        raise MaquetteError(f"{path} cannot be read: {error.strerror or error}.") from error


Lookup = Callable[[Storage], Tensor]  # -> the storage's raw bytes, 1-D uint8


def _read_zip(path: Path, file: IO[bytes], size: int) -> tuple[Any, Lookup]:
    _check_index(file, size)
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, struct.error, ValueError, NotImplementedError, EOFError) as error:
        raise Refused(f"it is truncated or corrupted ({str(error)[:80]}); download it again") from error
    entries = {info.filename: info for info in archive.infolist()}
    pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
    if len(pickles) != 1 or len(entries) != len(archive.infolist()):
        raise Refused("it is a zip archive but not a PyTorch file (no single data.pkl in it)")
    root = pickles[0][: -len("data.pkl")]
    if f"{root}constants.pkl" in entries:
        raise Refused("it is a TorchScript program, not a file of weights")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise Refused("it is a compressed archive, which PyTorch never writes")
    places = {name: _place(file, info, size) for name, info in entries.items()}
    if f"{root}byteorder" in places and _bytes(file, places[f"{root}byteorder"], 16) != b"little":
        raise Refused("its numbers are stored big-endian")
    if places[pickles[0]][1] > PICKLE_BYTES:
        raise Refused("its index is absurdly large")
    index = _bytes(file, places[pickles[0]], PICKLE_BYTES)
    _check_sum(index, entries[pickles[0]])
    content = Machine(io.BytesIO(index)).run()
    whole = mapped(path, size)

    @cache
    def lookup(storage: Storage) -> Tensor:
        name = f"{root}data/{storage.key}"
        if name not in places:
            raise Refused(f"its data {storage.key[:40]!r} is missing")
        start, length = places[name]
        found = whole[start : start + length]
        _check_sum(found.numpy().data, entries[name])
        return _aligned(found)

    return content, lookup


def _check_index(file: IO[bytes], size: int) -> None:
    """Refuse an archive whose list of entries is absurdly long before it is read. Leaves the file where it was."""
    before = file.tell()
    file.seek(max(0, size - _END_OF_ARCHIVE))
    tail = file.read()
    file.seek(before)
    lengths = []
    if (end := tail.rfind(b"PK\5\6")) >= 0:
        lengths.append(int.from_bytes(tail[end + 12 : end + 16], "little"))
    if (end := tail.rfind(b"PK\6\6")) >= 0:  # of archives with more or longer entries than the old form can name
        lengths.append(int.from_bytes(tail[end + 40 : end + 48], "little"))
    if any(ARCHIVE_INDEX_BYTES < length <= size for length in lengths):
        raise Refused("its list of entries is absurdly long")


def _check_sum(data: bytes | memoryview, info: zipfile.ZipInfo) -> None:
    """Compare with the archive's checksum; 0 is written where PyTorch was told to leave it out."""
    if info.CRC not in (0, zlib.crc32(data)):
        raise Refused(f"its entry {info.filename[:80]} does not match its checksum; download or copy it again")


def _aligned(raw: Tensor) -> Tensor:
    return raw.clone() if raw.storage_offset() % _ALIGNMENT else raw


def _place(file: IO[bytes], info: zipfile.ZipInfo, size: int) -> tuple[int, int]:
    """(offset, length) of an entry's bytes in the file."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise Refused("it is truncated or corrupted; download it again")
    names, extra = struct.unpack("<HH", header[26:30])
    offset = info.header_offset + 30 + names + extra
    if offset + info.file_size > size:
        raise Refused("it is truncated or corrupted; download it again")
    return offset, info.file_size


def _bytes(file: IO[bytes], place: tuple[int, int], most: int) -> bytes:
    file.seek(place[0])
    return file.read(min(most, place[1]))


def _read_legacy(path: Path, file: IO[bytes], size: int) -> tuple[Any, Lookup]:
    """The format before PyTorch 1.6: magic number, version, system, content, keys, then the raw storages one by one."""
    file.seek(0)
    pickles = io.BytesIO(file.read(PICKLE_BYTES))
    magic = Machine(pickles).run()
    if magic != _LEGACY_MAGIC:
        raise Refused("it is a pickle, but not one of PyTorch's files of weights")
    version, _system = Machine(pickles).run(), Machine(pickles).run()
    if version != 1001:
        shown = str(version)[:40] if isinstance(version, int | str) else "of its kind"
        raise Refused(f"its format version {shown} is unknown")
    machine = Machine(pickles)
    content, keys = machine.run(), Machine(pickles).run()
    if not isinstance(keys, list):
        raise Refused("its list of data is missing")
    whole = mapped(path, size)
    storages: dict[str, Tensor] = {}
    by_key = {storage.key: storage for storage in machine.storages}
    position = pickles.tell()
    for key in keys:
        storage = by_key.get(str(key)) if isinstance(key, str | int) else None
        file.seek(position)
        count = file.read(8)
        if storage is None or len(count) < 8:
            raise Refused("it is truncated or corrupted; download it again")
        start = position + 8
        position = start + int.from_bytes(count, "little", signed=True) * storage.dtype.itemsize
        if not start <= position <= size:
            raise Refused("it is truncated or corrupted; download it again")
        storages[storage.key] = whole[start:position]

    @cache
    def lookup(storage: Storage) -> Tensor:
        if storage.key not in storages:
            raise Refused(f"its data {storage.key[:40]!r} is missing")
        return _aligned(storages[storage.key])

    return content, lookup


class _Flattening:
    """Nested dictionaries -> dotted names, within budgets: a dictionary may hold itself, or one many times."""

    def __init__(self, lookup: Lookup, most_bytes: int) -> None:
        self.lookup, self.left = lookup, most_bytes
        self.entries = 0
        self.result = PickleFile({})

    def of(self, root: Any) -> PickleFile:
        """All tensors; the outer levels that only wrap a model are left out."""
        if isinstance(root, dict):
            for key in ("state_dict", "module", "model"):
                inner = root.get(key)
                if isinstance(inner, dict) and any(isinstance(v, TensorRecipe) for v in inner.values()):
                    self._collect({k: v for k, v in root.items() if k != key and not isinstance(v, dict)}, "", 0)
                    root = inner
                    break
            self._collect(root, "", 0)
        if not self.result.tensors:
            raise Refused("it holds no tensors")
        return self.result

    def _collect(self, value: Any, name: str, depth: int) -> None:
        self.entries += 1
        if self.entries > PICKLE_STEPS:
            raise Refused("its tables hold each other absurdly often")
        if isinstance(value, TensorRecipe):
            self._add(name, value)
        elif isinstance(value, dict) and depth < PICKLE_DEPTH:
            for key, item in value.items():
                if isinstance(key, str | int) and not isinstance(item, list | tuple):
                    self._collect(item, _joined(name, key), depth + 1)
        elif isinstance(value, str | int | float) and len(self.result.metadata) < _METADATA_ENTRIES:
            text = str(value)[:_METADATA_LENGTH]
            self.result.metadata[name] = text.encode("utf-8", "backslashreplace").decode()

    def _add(self, name: str, recipe: TensorRecipe) -> None:
        if len(self.result.tensors) >= TENSORS:
            raise Refused("it holds an absurd number of tensors")
        tensor = _build(recipe, self.lookup)
        self.left -= tensor.nbytes
        if self.left < 0:
            raise Refused("its tensors are absurdly larger than the file: they all show the same data")
        self.result.tensors[name] = tensor


def _joined(name: str, key: str | int) -> str:
    """The name of an entry within a table. Raises Refused for one that no other file can hold."""
    key = str(key)
    if len(name) + len(key) > NAME_LENGTH:
        raise Refused(f"it holds a name of {len(name) + len(key)} characters")
    if not key.isascii():
        try:
            key.encode()
        except UnicodeEncodeError as error:
            raise Refused("it holds a name with half of a surrogate pair, which is no text") from error
    return f"{name}.{key}" if name else key


def _build(recipe: TensorRecipe, lookup: Lookup) -> Tensor:
    raw = lookup(recipe.storage)
    item = recipe.dtype.itemsize
    last = recipe.offset + sum((n - 1) * s for n, s in zip(recipe.shape, recipe.stride, strict=True))
    if 0 in recipe.shape:
        return torch.empty(recipe.shape, dtype=recipe.dtype)
    if (last + 1) * item > len(raw) or math.prod(recipe.shape) * item > len(raw):
        raise Refused("a tensor reaches beyond its data; the file is truncated or corrupted")
    return (
        raw[: len(raw) // item * item]
        .view(recipe.dtype)
        .as_strided(recipe.shape, recipe.stride, raw.storage_offset() // item + recipe.offset)
    )
