"""Tensors of a safetensors file as far as they can be told without torch, which takes seconds to import."""

from __future__ import annotations

import math
import mmap
import struct
from typing import TYPE_CHECKING, Any

from ..errors import MaquetteError
from ..files import open_regular
from .safetensors_header import SIZES, TYPES, Header, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 18  # numbers that are looked at together
# Type in the file -> how struct reads one, and of floating-point ones the bits of which all are set in what is no
# finite number.
_BITS: dict[str, tuple[str, int]] = {
    "F64": ("<d", 0x7FF0_0000_0000_0000),
    "F32": ("<f", 0x7F80_0000),
    "F16": ("<e", 0x7C00),
    "BF16": ("", 0x7F80),
    "F8_E4M3": ("", 0x7F),  # it has no infinity and one NaN
    "F8_E5M2": ("", 0x7C),
    "I64": ("<q", 0),
    "I32": ("<i", 0),
    "I16": ("<h", 0),
    "I8": ("<b", 0),
    "U64": ("<Q", 0),
    "U32": ("<I", 0),
    "U16": ("<H", 0),
    "U8": ("<B", 0),
    "BOOL": ("<?", 0),
    "C64": ("", 0),
}


class Numbers:
    """What stands for a tensor where nothing is calculated: shape and type, which come from the header, and single
    numbers, which are read when asked for. Whatever else a tensor can do is done by a real one, which imports torch.
    """

    def __init__(self, body: _Body, name: str, info: TensorInfo, shape: tuple[int, ...] | None = None) -> None:
        self._body, self._name, self._info = body, name, info
        self.shape = info.shape if shape is None else shape
        self.dtype = TYPES[info.dtype]
        self._format, self._special = _BITS[info.dtype]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return math.prod(self.shape)

    def is_floating_point(self) -> bool:
        return bool(self._special)

    def is_complex(self) -> bool:
        return self.dtype.startswith("complex")

    def is_finite(self) -> bool:
        """Whether no number is NaN or infinite: a look at the exponents' bits."""
        import numpy as np

        if not self._special:
            return True
        start, kind = self._body.start + self._info.start, np.dtype(f"<u{SIZES[self._info.dtype]}")
        special = kind.type(self._special)
        for done in range(0, self.numel(), _BLOCK):
            count = min(_BLOCK, self.numel() - done)
            bits = np.frombuffer(self._body.area, kind, count, start + done * kind.itemsize)
            if bool(((bits & special) == special).any()):
                return False
        return True

    def reshape(self, *shape: int) -> Numbers:
        """-1 may stand for one side."""
        rest = math.prod(side for side in shape if side != -1)
        sides = tuple(self.numel() // max(1, rest) if side == -1 else side for side in shape)
        if math.prod(sides) != self.numel():
            raise ValueError(f"{self._name} of shape {self.shape} has no shape {shape}")
        return Numbers(self._body, self._name, self._info, sides)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        return self.reshape(1, *self.shape) if index is None else self.tensor()[index]

    def __float__(self) -> float:
        """Of one number."""
        raw = self._body.read(self._body.start + self._info.start, SIZES[self._info.dtype])
        if self.numel() == 1 and self._info.dtype == "BF16":
            return float(struct.unpack("<f", b"\0\0" + raw)[0])
        if self.numel() == 1 and self._format:
            return float(struct.unpack(self._format, raw)[0])
        return float(self.tensor())

    def __int__(self) -> int:
        return int(float(self))

    def __mul__(self, other: Any) -> Tensor:
        made: Tensor = self.tensor() * other
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what copying and the like ask for
            raise AttributeError(name)
        return getattr(self.tensor(), name)

    def tensor(self) -> Tensor:
        """The real one, mapped as `safetensors.load` maps it."""
        from . import safetensors

        return safetensors.load(self._body.path)[self._name].reshape(self.shape)


class _Body:
    """A file's bytes. start: where the tensors begin."""

    def __init__(self, header: Header) -> None:
        self.path, self.start = header.path, header.body
        try:
            with open_regular(header.path) as file:
                self.area = mmap.mmap(file.fileno(), header.file_size, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:  # ValueError: it became shorter since
            raise MaquetteError(f"{header.path} cannot be read: {error}.") from error

    def read(self, place: int, size: int) -> bytes:
        return self.area[place : place + size]


def look(header: Header) -> dict[str, Numbers]:
    """All tensors of a file. Raises MaquetteError."""
    body = _Body(header)
    return {name: Numbers(body, name, info) for name, info in header.tensors.items()}
