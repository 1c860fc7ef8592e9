"""Files that lie, break off, or want to run something. Each maker returns bytes; nothing here is ever executed."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import torch

Maker = Callable[[], bytes]


def safetensors_file(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(raw) if length is None else length).to_bytes(8, "little") + raw + body


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": list(shape) if isinstance(shape, tuple) else shape,
        "data_offsets": offsets,
        **more,
    }


BODY = bytes(8)
# name -> (bytes, words that the refusal must contain)
SAFETENSORS: dict[str, tuple[Maker, str]] = {
    "empty": (lambda: b"", "is empty"),
    "seven bytes": (lambda: b"1234567", "only 7 bytes"),
    "text renamed": (lambda: b"Dear diary, today I renamed a text file.", "looks like text"),
    "web page": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", "looks like text"),
    "git lfs pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
    "picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture (PNG), not a file of weights"),
    "photo": (lambda: b"\xff\xd8\xff\xe0" + bytes(100), "is a picture (JPEG), not a file of weights"),
    "header longer than file": (lambda: safetensors_file({"a": entry()}, BODY, 10_000), "truncated or corrupted"),
    "header of exabytes": (lambda: safetensors_file({"a": entry()}, BODY, 1 << 62), "not a safetensors file"),
    "header of 20 MB": (lambda: safetensors_file({"a": entry()}, BODY, 20_000_000), "truncated or corrupted"),
    "header of 90 MB": (lambda: safetensors_file({"a": entry()}, BODY, 90_000_000), "not a safetensors file"),
    "header not json": (lambda: safetensors_file(b"{nonsense}", BODY), "not valid JSON"),
    "header not utf-8": (lambda: safetensors_file(b'{"\xff\xfe": 1}', BODY), "not valid JSON"),
    "header a list": (lambda: safetensors_file([1, 2], BODY), "not a table"),
    "header nested deep": (lambda: safetensors_file(b"[" * 200_000 + b"]" * 200_000, BODY), "corrupted"),
    "header number of a million digits": (
        lambda: safetensors_file(b'{"a":' + b"9" * 1_000_000 + b"}"),
        "not valid JSON",
    ),
    "name twice": (lambda: safetensors_file(b'{"a":1,"a":2}', BODY), "occurs twice"),
    "entry no table": (lambda: safetensors_file({"a": 7}, BODY), "not described by"),
    "entry without shape": (
        lambda: safetensors_file({"a": {"dtype": "F32", "data_offsets": [0, 8]}}, BODY),
        "not described by",
    ),
    "entry with more": (lambda: safetensors_file({"a": entry(code="import os")}, BODY), "not described by"),
    "dtype unknown": (lambda: safetensors_file({"a": entry("F37")}, BODY), "unknown type 'F37'"),
    "dtype a list": (lambda: safetensors_file({"a": entry(["F32"])}, BODY), "unknown type"),
    "dtype lies wider": (lambda: safetensors_file({"a": entry("F64")}, BODY), "needs 16 bytes but is given 8"),
    "dtype lies narrower": (lambda: safetensors_file({"a": entry("F16")}, BODY), "needs 4 bytes but is given 8"),
    "shape negative": (lambda: safetensors_file({"a": entry(shape=(-2,))}, BODY), "impossible shape"),
    "shape of fractions": (lambda: safetensors_file({"a": entry(shape=(1.5,))}, BODY), "impossible shape"),
    "shape true": (lambda: safetensors_file({"a": entry(shape=(True, 2))}, BODY), "impossible shape"),
    "shape a text": (lambda: safetensors_file({"a": entry(shape="2")}, BODY), "impossible shape"),
    "shape overflows": (lambda: safetensors_file({"a": entry(shape=(1 << 62, 4))}, BODY), "impossible shape"),
    "shape overflows behind a 0": (
        lambda: safetensors_file({"a": entry(shape=(0, 1 << 62, 1 << 62), offsets=[0, 0])}),
        "impossible shape",
    ),
    "name of 2000 characters": (lambda: safetensors_file({"a" * 2000: entry()}, BODY), "has a name of 2000 characters"),
    "half a surrogate pair": (lambda: safetensors_file(b'{"__metadata__":{"a":"\\ud800"}}'), "surrogate"),
    "number of 400 digits": (
        lambda: safetensors_file(b'{"a":{"dtype":"F32","shape":[' + b"7" * 400 + b"]}}", BODY),
        "400 digits",
    ),
    "infinite shape": (lambda: safetensors_file(b'{"a":{"dtype":"F32","shape":[1e999]}}'), "too large"),
    "200,000 tensors": (lambda: safetensors_file(b"[" + b'"dtype",' * 200_000 + b"0]"), "more than 100000 tensors"),
    "shape of 1000 sides": (lambda: safetensors_file({"a": entry(shape=(1,) * 1000)}, BODY), "impossible shape"),
    "shape too large": (lambda: safetensors_file({"a": entry(shape=(1 << 40,))}, BODY), "needs"),
    "offsets backwards": (lambda: safetensors_file({"a": entry(offsets=[8, 0])}, BODY), "impossible offsets"),
    "offsets negative": (lambda: safetensors_file({"a": entry(offsets=[-8, 0])}, BODY), "impossible offsets"),
    "offsets three": (lambda: safetensors_file({"a": entry(offsets=[0, 4, 8])}, BODY), "impossible offsets"),
    "offsets beyond end": (lambda: safetensors_file({"a": entry(offsets=[8, 16])}, BODY), "truncated"),
    "offsets overlap": (
        lambda: safetensors_file({"a": entry(), "b": entry(offsets=[4, 12])}, bytes(12)),
        "overlaps another tensor",
    ),
    "offsets the same twice": (lambda: safetensors_file({"a": entry(), "b": entry()}, BODY), "overlaps another tensor"),
    "hole in the body": (lambda: safetensors_file({"a": entry(offsets=[8, 16])}, bytes(16)), "leaves a hole"),
    "bytes behind the last tensor": (lambda: safetensors_file({"a": entry()}, bytes(99)), "91 bytes follow"),
    "metadata numbers": (lambda: safetensors_file({"__metadata__": {"a": 1}, "a": entry()}, BODY), "metadata"),
    "metadata a list": (lambda: safetensors_file({"__metadata__": [], "a": entry()}, BODY), "metadata"),
}


def calling(module: str, name: str, *arguments: Any) -> bytes:
    """Protocol-2 pickle that calls module.name(*arguments) when it is unpickled."""
    inner = b"".join(b"X" + struct.pack("<I", len(a.encode())) + a.encode() for a in map(str, arguments))
    return b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n(" + inner + b"tR."


def archive(content: bytes, name: str = "archive/data.pkl", compressed: bool = False, **entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as file:
        file.writestr(name, content)
        for entry_name, data in entries.items():
            file.writestr("archive/" + entry_name.replace("__", "/"), data)
    return buffer.getvalue()


def tensor_pickle(
    numel: int = 2,
    offset: int = 0,
    shape: Any = (2,),
    stride: Any = (1,),
    storage: bytes = b"FloatStorage",
    key: str = "0",
) -> bytes:
    """The pickle of {"a": tensor} as PyTorch writes it, with any numbers in it."""

    def number(value: Any) -> bytes:
        if isinstance(value, tuple):
            return b"(" + b"".join(map(number, value)) + b"t"
        if isinstance(value, str):
            return b"X" + struct.pack("<I", len(value)) + value.encode()
        raw = int(value).to_bytes(16, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw

    where = number("storage") + b"ctorch\n" + storage + b"\n" + number(key) + number("cpu") + number(numel)
    arguments = b"((" + where + b"tQ" + number(offset) + number(shape) + number(stride) + b"\x89Nt"
    return b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def many_of_the_same(count: int = 10_000) -> bytes:
    """A pickle in which one tensor of eight kilobytes stands under many names."""
    one = tensor_pickle(numel=2000, shape=(2000,))
    made = one[one.index(b"ctorch._utils") : -2]
    entries = b"".join(b"X\x05\0\0\0%05dh\0" % i for i in range(count))
    return with_data(b"\x80\x02" + made + b"q\x000}(" + entries + b"u.", bytes(8000))


def with_data(content: bytes, data: bytes = bytes(8)) -> bytes:
    return archive(content, data__0=data)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


MANY = 1_600_000
# name -> (bytes, words that the refusal must contain)
PICKLES: dict[str, tuple[Maker, str]] = {
    "os.system in a zip": (lambda: archive(calling("os", "system", "touch trap")), "os.system"),
    "posix.system": (lambda: archive(calling("posix", "system", "touch trap")), "posix.system"),
    "os.system bare": (lambda: calling("os", "system", "touch trap"), "os.system"),
    "builtins.eval": (lambda: archive(calling("builtins", "eval", "open('trap','w')")), "builtins.eval"),
    "python 2 eval": (lambda: archive(calling("__builtin__", "eval", "open('trap','w')")), "__builtin__.eval"),
    "builtins.getattr": (lambda: archive(calling("builtins", "getattr", "a", "b")), "builtins.getattr"),
    "subprocess": (lambda: archive(calling("subprocess", "Popen", "touch trap")), "subprocess.Popen"),
    "torch.load": (lambda: archive(calling("torch", "load", "x")), "torch.load"),
    "torch.hub": (lambda: archive(calling("torch.hub", "load", "x")), "torch.hub.load"),
    "runpy": (lambda: archive(calling("runpy", "run_path", "x")), "runpy.run_path"),
    "importlib": (lambda: archive(calling("importlib", "import_module", "os")), "importlib.import_module"),
    "pickle in pickle": (lambda: archive(calling("pickle", "loads", "x")), "pickle.loads"),
    "name by stack": (
        lambda: archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x01x\x85R."),
        "os.system",
    ),
    "dotted name": (lambda: archive(b"\x80\x04\x8c\x05torch\x8c\x0b_utils.os.x\x93."), "torch._utils.os.x"),
    "instance opcode": (lambda: archive(b"\x80\x02(ios\nsystem\n."), "os.system"),
    "extension opcode": (lambda: archive(b"\x80\x02\x82\x01."), "EXT1"),
    "calls a constructor's result": (lambda: archive(b"\x80\x02}(tR."), "wants to call dict"),
    "nested archive": (
        lambda: archive(b"x", "inner.zip", inner=archive(calling("os", "system", "x"))),
        "no single data.pkl",
    ),
    "two pickles": (
        lambda: archive(b"\x80\x02N.", extra__data_pkl=b"", **{"b__data.pkl": b"\x80\x02N."}),
        "no single data.pkl",
    ),
    "torchscript": (lambda: archive(b"\x80\x02}.", **{"constants.pkl": b"\x80\x02)."}), "TorchScript"),
    "zip bomb": (lambda: archive(b"\x80\x02N." + bytes(50_000_000), compressed=True), "compressed archive"),
    "zip without pickle": (lambda: archive(b"hello", "readme.txt"), "no single data.pkl"),
    "not a zip": (lambda: b"PK\x03\x04" + bytes(100), "truncated or corrupted"),
    "memo bomb": (lambda: archive(b"\x80\x02Nr\xff\xff\xff\x7f."), "no tensors"),
    "bytes bomb": (lambda: archive(b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"."), "truncated or corrupted"),
    "text bomb": (lambda: archive(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"."), "truncated or corrupted"),
    "many instructions": (lambda: archive(b"\x80\x02" + b"]" * MANY + b"."), "absurdly long"),
    "doubling lists": (lambda: archive(b"\x80\x02" + b"]" + b"2\x86" * 60 + b"."), "no tensors"),
    "no stop": (lambda: archive(b"\x80\x02N"), "truncated or corrupted"),
    "empty stack": (lambda: archive(b"\x80\x02."), "truncated or corrupted"),
    "unknown memo": (lambda: archive(b"\x80\x02h\x05."), "truncated or corrupted"),
    "unhashable key": (lambda: archive(b"\x80\x02}]Ns."), "truncated or corrupted"),
    "plain object": (lambda: pickle.dumps({"a": [1, 2, 3]}, protocol=2), "not one of PyTorch's"),
    "no tensors": (lambda: saved({"a": "b"}), "no tensors"),
    "tensor beyond its data": (lambda: with_data(tensor_pickle(shape=(9,))), "reaches beyond its data"),
    "tensor offset beyond": (lambda: with_data(tensor_pickle(offset=7)), "reaches beyond its data"),
    "tensor stride beyond": (lambda: with_data(tensor_pickle(stride=(1000,))), "reaches beyond its data"),
    "tensor of terabytes from 8 bytes": (
        lambda: with_data(tensor_pickle(shape=(1 << 40,), stride=(0,))),
        "reaches beyond",
    ),
    "tensor of negative size": (lambda: with_data(tensor_pickle(shape=(-1,))), "impossible numbers"),
    "tensor with negative stride": (lambda: with_data(tensor_pickle(stride=(-1,))), "impossible numbers"),
    "tensor with more strides": (lambda: with_data(tensor_pickle(stride=(1, 1))), "disagree"),
    "tensor of unknown storage": (lambda: with_data(tensor_pickle(storage=b"EvilStorage")), "torch.EvilStorage"),
    "tensor without data": (lambda: with_data(tensor_pickle(key="17")), "'17' is missing"),
    "tensor key with a path": (lambda: with_data(tensor_pickle(key="../../etc/passwd")), "is missing"),
    "deep tuple as a key": (lambda: archive(b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."), "nested absurdly deep"),
    "deep tuple as a key of a million": (
        lambda: archive(b"\x80\x02})" + b"\x85" * 1_000_000 + b"Ns."),
        "absurdly long",
    ),
    "shared tuples as a key": (lambda: archive(b"\x80\x02})" + b"2\x86" * 60 + b"Ns."), "nested absurdly deep"),
    "shared tuples as a dictionary's pairs": (
        lambda: archive(b"\x80\x02ccollections\nOrderedDict\n])" + b"2\x86" * 60 + b"N\x86a\x85R."),
        "nested absurdly deep",
    ),
    "shared tuples as the key of data": (
        lambda: archive(b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\n)" + b"2\x86" * 60 + b"NK\x02tQ."),
        "truncated or corrupted",
    ),
    "shared tuples as a module": (
        lambda: archive(b"\x80\x04)" + b"2\x86" * 60 + b"X\x01\0\0\0a\x93."),
        "truncated or corrupted",
    ),
    "shared tuples as the old format's version": (
        lambda: b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02)" + b"2\x86" * 60 + b"." + b"\x80\x02N.",
        "format version of its kind is unknown",
    ),
    "number of 24,000 digits": (
        lambda: archive(b"\x80\x02}X\x01\0\0\0a\x8b" + struct.pack("<I", 10_000) + b"\x7f" * 10_000 + b"s."),
        "a whole number of 79999 bits",
    ),
    "shape true in a pickle": (lambda: with_data(tensor_pickle(shape=True)), "impossible shape"),
    "shape overflows behind a 0 in a pickle": (
        lambda: with_data(tensor_pickle(shape=(0, 1 << 40, 1 << 40), stride=(1, 1, 1))),
        "impossible shape",
    ),
    "dictionary that holds itself a hundred times": (
        lambda: archive(b"\x80\x02}q\0(" + b"".join(b"X\x04\0\0\0%04dh\0" % i for i in range(100)) + b"u."),
        "hold each other absurdly often",
    ),
    "one set copied a thousand times": (
        lambda: archive(b"\x80\x02](" + b"N" * 10_000 + b"eq\0" + b"cbuiltins\nset\nh\0\x85R0" * 1000 + b"."),
        "absurdly long",
    ),
    "set of a text": (lambda: archive(b"\x80\x02cbuiltins\nset\nX\x02\0\0\0ab\x85R."), "set of what is no list"),
    "name of 2000 characters in a pickle": (
        lambda: archive(b"\x80\x02}X" + struct.pack("<I", 2000) + b"a" * 2000 + b"Ns."),
        "a name of 2000 characters",
    ),
    "name with half a surrogate pair": (lambda: archive(b"\x80\x02}X\x03\0\0\0\xed\xa0\x80Ns."), "surrogate"),
    "ten thousand tensors of the same data": (many_of_the_same, "all show the same data"),
    "wrong checksum": (lambda: with_data(tensor_pickle()).replace(bytes(8), b"\1" + bytes(7), 1), "checksum"),
    "wrong checksum of the index": (
        lambda: with_data(tensor_pickle()).replace(b"_rebuild_tensor_v2", b"_rebuild_tensor_v1"),
        "data.pkl does not match its checksum",
    ),
    "data of a text": (lambda: archive(b"\x80\x02X\x01\x00\x00\x00aQ."), "truncated or corrupted"),
}
