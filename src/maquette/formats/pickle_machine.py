"""A small interpreter for PyTorch's pickles that can build only tensor recipes and plain containers.

Python's unpickler calls whatever the file asks for. This one has no way to call anything: globals are inert names,
and the few constructions that PyTorch uses for tensors are understood by name. Every other name is refused, and the
user is told it.
"""

from __future__ import annotations

import math
import pickletools
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import IO, Any

import torch

from ..limits import PICKLE_DEPTH, PICKLE_STEPS, TENSOR_NUMBERS, TENSOR_SIDES

_STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "Float8_e4m3fnStorage": torch.float8_e4m3fn,
    "Float8_e5m2Storage": torch.float8_e5m2,
    "UntypedStorage": torch.uint8,
}
# Harmless things that trainers leave in checkpoints. They become empty place-holders; their code is never looked up.
_IGNORED = {
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "_codecs.encode",
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "lightning.pytorch.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.utilities.enums.GradClipAlgorithmType",
    "torch.Size",
    "torch.device",
}


_NUMBER_BITS = 130  # of a whole number; seeds and the format's own magic number have up to 128


class Refused(Exception):
    """Why a pickle is not read, as the end of a sentence."""


@dataclass(frozen=True)
class _Global:
    name: str


class _Ignored:
    """Stands for a harmless object that is not needed."""


@dataclass(frozen=True)
class Storage:
    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class TensorRecipe:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class Machine:
    """Runs the instructions of one pickle on plain values. Calls nothing, imports nothing."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.spent = 0  # instructions, and entries of containers that they copied
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: list[Storage] = []

    def run(self) -> Any:
        """The value that the pickle builds."""
        try:
            for opcode, argument, _ in pickletools.genops(self.file):
                self._spend(1)
                if opcode.name == "STOP":
                    return self.stack.pop()
                self._step(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError, struct.error) as error:
            raise Refused(f"its index is truncated or corrupted ({str(error)[:80]})") from error
        raise Refused("its index is truncated or corrupted")

    def _spend(self, count: int) -> None:
        """Count work. Raises Refused beyond the budget, which bounds time and memory that a file can ask for."""
        self.spent += count
        if self.spent > PICKLE_STEPS:
            raise Refused("its index is absurdly long")

    def _step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > _NUMBER_BITS:
                raise Refused(f"it holds a whole number of {argument.bit_length()} bits")
            stack.append(argument)
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("POP", "POP_MARK"):
            self._marked() if name == "POP_MARK" else stack.pop()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else int(argument)] = stack[-1]
        elif name in _CONTAINERS:
            self._container(name)
        elif name in ("GLOBAL", "INST"):
            self._global(*str(argument).split(" ", 1))
            if name == "INST":
                raise Refused(f"it wants to call {stack[-1].name}")
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            if not isinstance(module, str) or not isinstance(attribute, str):
                raise ValueError("a name that is no text")
            self._global(module, attribute)
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._construct(function, arguments))
        elif name == "BUILD":
            stack.pop()  # the state of a container or of an ignored object: attributes that nothing here needs
        elif name == "BINPERSID":
            stack.append(self._persistent(stack.pop()))
        else:
            raise Refused(f"it uses the pickle instruction {name}, which files of weights never need")

    def _marked(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _container(self, name: str) -> None:
        stack = self.stack
        if name in ("APPEND", "APPENDS", "ADDITEMS"):
            items = [stack.pop()] if name == "APPEND" else self._marked()
            if isinstance(stack[-1], list):
                stack[-1].extend(items)
            elif not isinstance(stack[-1], _Ignored):
                raise ValueError("items for what is no list")
        elif name in ("SETITEM", "SETITEMS"):
            items = [stack.pop(-2), stack.pop()] if name == "SETITEM" else self._marked()
            if isinstance(stack[-1], dict):
                stack[-1].update(_entries(zip(items[::2], items[1::2], strict=True)))
            elif not isinstance(stack[-1], _Ignored):
                raise ValueError("entries for what is no dictionary")
        elif name == "DICT":
            items = self._marked()
            stack.append(_entries(zip(items[::2], items[1::2], strict=True)))
        elif name in ("TUPLE", "LIST", "FROZENSET"):
            stack.append(tuple(self._marked()) if name == "TUPLE" else self._marked())
        else:
            count = int(name[-1])  # TUPLE1 … TUPLE3
            items = stack[-count:]
            if len(items) < count:
                raise ValueError("nothing to put into a tuple")
            del stack[-count:]
            stack.append(tuple(items))

    def _global(self, module: str, attribute: str) -> None:
        name = f"{module}.{attribute}"
        if name not in _IGNORED and name not in _CONSTRUCTORS and _storage_dtype(name) is None and name not in _DTYPES:
            raise Refused(f"it wants to use {name[:120]}, which a file of weights does not need; it may be malicious")
        self.stack.append(_Global(name))

    def _construct(self, function: Any, arguments: Any) -> Any:
        if isinstance(function, _Ignored) or (isinstance(function, _Global) and function.name in _IGNORED):
            return _Ignored()
        if not isinstance(function, _Global) or function.name not in _CONSTRUCTORS or not isinstance(arguments, tuple):
            raise Refused(f"it wants to call {str(getattr(function, 'name', type(function).__name__))[:120]}")
        self._spend(sum(len(part) for part in (arguments, *arguments[:1]) if isinstance(part, list | tuple | dict)))
        return _CONSTRUCTORS[function.name](*arguments)

    def _persistent(self, identifier: Any) -> Storage:
        if not isinstance(identifier, tuple) or len(identifier) < 5 or identifier[0] != "storage":
            raise ValueError("a reference to what is no tensor data")
        kind, key, numel = identifier[1], identifier[2], identifier[4]
        dtype = _storage_dtype(kind.name) if isinstance(kind, _Global) else None
        if dtype is None or not _is_count(numel) or not isinstance(key, str | int):
            raise ValueError("a reference to data of an unknown type")
        storage = Storage(dtype, str(key), numel)
        self.storages.append(storage)
        return storage


def _storage_dtype(name: str) -> torch.dtype | None:
    module, _, attribute = name.rpartition(".")
    return _STORAGES.get(attribute) if module in ("torch", "torch.storage", "torch.cuda") else None


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any, dtype: torch.dtype | None = None
) -> TensorRecipe:
    if not all(isinstance(sides, list | tuple) and len(sides) <= TENSOR_SIDES for sides in (shape, stride)):
        raise ValueError("a tensor of an impossible shape")
    numbers = [offset, *shape, *stride]
    if not isinstance(storage, Storage) or not all(map(_is_count, numbers)):
        raise ValueError("a tensor with impossible numbers")
    if len(shape) != len(stride):
        raise ValueError("a tensor whose shape and strides disagree")
    if math.prod(max(1, side) for side in shape) > TENSOR_NUMBERS:
        raise ValueError("a tensor of an impossible shape")
    return TensorRecipe(storage, offset, tuple(shape), tuple(stride), dtype or storage.dtype)


def _tensor_v3(
    storage: Any, offset: Any, shape: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> TensorRecipe:
    if not isinstance(dtype, _Global) or dtype.name not in _DTYPES:
        raise ValueError("a tensor of an unknown type")
    return _tensor(storage, offset, shape, stride, dtype=_DTYPES[dtype.name])


def _parameter(data: Any, *_rest: Any) -> Any:
    return data


def _dictionary(items: Any = ()) -> dict[Any, Any]:
    return _entries(items.items() if isinstance(items, dict) else items)


def _items(items: Any = ()) -> list[Any]:
    if not isinstance(items, list | tuple):
        raise ValueError("a set of what is no list")
    return list(items)


def _entries(pairs: Iterable[Any]) -> dict[Any, Any]:
    """A dictionary of the entries whose key can name a tensor. Others (tuples, objects) are passed over: to hash a
    tuple that holds one tuple twice, which holds one twice …, would take for ever.
    """
    result = {}
    for key, value in pairs:
        if isinstance(key, str | int | float | bytes) or key is None:
            result[key] = value
        elif isinstance(key, list | dict):
            raise ValueError("an entry under what cannot be a name")
        elif _is_deep(key):
            raise ValueError("a name that is nested absurdly deep")
    return result


def _is_deep(key: Any) -> bool:
    """Whether a tuple begins with a tuple that begins with one …, oftener than anybody means."""
    for _ in range(PICKLE_DEPTH):
        if not isinstance(key, tuple) or not key:
            return False
        key = key[0]
    return True


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 48


_DTYPES = {str(dtype): dtype for dtype in _STORAGES.values()}
_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": _dictionary,
    "builtins.set": _items,
    "__builtin__.set": _items,
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": list,
}
_VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_CONTAINERS = {
    "APPEND", "APPENDS", "ADDITEMS", "SETITEM", "SETITEMS", "DICT", "LIST", "FROZENSET",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
}  # fmt: skip
