"""PyTorch pickles (.ckpt, .pt, .bin) read without unpickling: `pickle_machine` builds recipes, this module finds
their data.

Tensor data is memory-mapped where it lies in the (uncompressed) zip archive; the format before PyTorch 1.6 is read too.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from ..errors import MaquetteError
from .pickle_machine import Machine, Refused, Storage, TensorRecipe

MAX_PICKLE = 64 << 20  # bytes of instructions; a model of 7 GB needs half a megabyte
MAX_TENSORS = 200_000
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


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
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                root, storage = _read_zip(path, file)
            else:
                file.seek(0)
                root, storage = _read_legacy(file)
            return _flatten(root, storage)
    except Refused as error:
        raise MaquetteError(f"{path} was not opened: {error}.") from error
    except OSError as error:
        raise MaquetteError(f"{path} cannot be read: {error.strerror or error}.") from error


Lookup = Callable[[Storage], Tensor]  # -> the storage's raw bytes, 1-D uint8


def _read_zip(path: Path, file: IO[bytes]) -> tuple[Any, Lookup]:
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
    size = file.seek(0, io.SEEK_END)
    places = {name: _place(file, info, size) for name, info in entries.items()}
    if f"{root}byteorder" in places and _bytes(file, places[f"{root}byteorder"]) != b"little":
        raise Refused("its numbers are stored big-endian")
    if places[pickles[0]][1] > MAX_PICKLE:
        raise Refused("its index is absurdly large")
    content = Machine(io.BytesIO(_bytes(file, places[pickles[0]]))).run()
    mapped: Any = torch.UntypedStorage.from_file(str(path), shared=False, nbytes=size)
    whole = torch.empty(0, dtype=torch.uint8).set_(mapped)

    def lookup(storage: Storage) -> Tensor:
        place = places.get(f"{root}data/{storage.key}")
        if place is None:
            raise Refused(f"its data {storage.key[:40]!r} is missing")
        found: Tensor = whole[place[0] : place[0] + place[1]]
        return found

    return content, lookup


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


def _bytes(file: IO[bytes], place: tuple[int, int]) -> bytes:
    file.seek(place[0])
    return file.read(place[1])


def _read_legacy(file: IO[bytes]) -> tuple[Any, Lookup]:
    """The format before PyTorch 1.6: magic number, version, system, content, keys, then the raw storages one by one."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = Machine(file).run()
    if magic != _LEGACY_MAGIC:
        raise Refused("it is a pickle, but not one of PyTorch's files of weights")
    version, _system = Machine(file).run(), Machine(file).run()
    if version != 1001:
        raise Refused(f"its format version {str(version)[:40]} is unknown")
    machine = Machine(file)
    content, keys = machine.run(), Machine(file).run()
    if not isinstance(keys, list):
        raise Refused("its list of data is missing")
    storages: dict[str, Tensor] = {}
    by_key = {storage.key: storage for storage in machine.storages}
    for key in keys:
        storage = by_key.get(str(key))
        count = file.read(8)
        if storage is None or len(count) < 8:
            raise Refused("it is truncated or corrupted; download it again")
        length = int.from_bytes(count, "little", signed=True) * storage.dtype.itemsize
        if not 0 <= length <= size - file.tell():
            raise Refused("it is truncated or corrupted; download it again")
        raw = bytearray(file.read(length))
        storages[storage.key] = torch.frombuffer(raw, dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)

    def lookup(storage: Storage) -> Tensor:
        if storage.key not in storages:
            raise Refused(f"its data {storage.key[:40]!r} is missing")
        return storages[storage.key]

    return content, lookup


def _flatten(root: Any, lookup: Lookup) -> PickleFile:
    """Nested dictionaries -> dotted names; the outer levels that only wrap a model are left out."""
    result = PickleFile({})
    if isinstance(root, dict):
        for key in ("state_dict", "module", "model"):
            if isinstance(root.get(key), dict) and any(isinstance(v, TensorRecipe) for v in root[key].values()):
                _collect({k: v for k, v in root.items() if k != key and not isinstance(v, dict)}, "", lookup, result, 0)
                root = root[key]
                break
        _collect(root, "", lookup, result, 0)
    if not result.tensors:
        raise Refused("it holds no tensors")
    return result


def _collect(value: Any, name: str, lookup: Lookup, result: PickleFile, depth: int) -> None:
    if isinstance(value, TensorRecipe):
        if len(result.tensors) >= MAX_TENSORS:
            raise Refused("it holds an absurd number of tensors")
        result.tensors[name] = _build(value, lookup)
    elif isinstance(value, dict) and depth < 6:
        for key, item in value.items():
            if isinstance(key, str | int) and not isinstance(item, list | tuple):
                _collect(item, f"{name}.{key}" if name else str(key), lookup, result, depth + 1)
    elif isinstance(value, str | int | float) and len(result.metadata) < 10_000:
        result.metadata[name] = str(value)[:10_000]


def _build(recipe: TensorRecipe, lookup: Lookup) -> Tensor:
    raw = lookup(recipe.storage)
    item = recipe.dtype.itemsize
    last = recipe.offset + sum((n - 1) * s for n, s in zip(recipe.shape, recipe.stride, strict=True))
    if 0 in recipe.shape:
        return torch.empty(recipe.shape, dtype=recipe.dtype)
    if (last + 1) * item > len(raw) or math.prod(recipe.shape) * item > len(raw):
        raise Refused("a tensor reaches beyond its data; the file is truncated or corrupted")
    if raw.storage_offset() % item:
        raw = raw.clone()
    return (
        raw[: len(raw) // item * item]
        .view(recipe.dtype)
        .as_strided(recipe.shape, recipe.stride, raw.storage_offset() // item + recipe.offset)
    )
