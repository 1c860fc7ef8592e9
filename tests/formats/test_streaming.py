"""Files written tensor by tensor by several threads: the same bytes as written at once, whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from maquette.errors import MaquetteError
from maquette.formats import mapping, pickle_writer, safetensors, streaming, tensor_files
from maquette.formats.streaming import Entry

METADATA = {"a": "b", "number": "0000"}


def numbers() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    made = {f"layer.{i}.weight": torch.randn(7, 5 + i, generator=generator) for i in range(20)}
    made |= {f"half.{i}": torch.randn(4, 3, 2, 2, generator=generator).half() for i in range(5)}
    return made | {"ids": torch.arange(12).reshape(3, 4), "nothing": torch.zeros(0, 3), "one": torch.tensor(2.5)}


def rows(tensor: Tensor) -> Iterable[Tensor]:
    return tensor.split(2) if tensor.ndim and len(tensor) else (tensor,)


def entries(tensors: dict[str, Tensor], dtype: torch.dtype | None = None) -> dict[str, Entry]:
    return {
        name: Entry(
            dtype if dtype and tensor.is_floating_point() else tensor.dtype, tuple(tensor.shape), partial(rows, tensor)
        )
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_same_bytes_as_written_at_once(threads: int, dtype: torch.dtype | None, tmp_path: Path) -> None:
    safetensors.save(numbers(), tmp_path / "once.safetensors", METADATA, dtype)
    streaming.write(entries(numbers(), dtype), tmp_path / "streamed.safetensors", METADATA, threads=threads)
    assert (tmp_path / "once.safetensors").read_bytes() == (tmp_path / "streamed.safetensors").read_bytes()
    assert os.stat(tmp_path / "once.safetensors").st_mode == os.stat(tmp_path / "streamed.safetensors").st_mode


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_a_pytorch_file_that_torch_itself_reads(threads: int, dtype: torch.dtype | None, tmp_path: Path) -> None:
    path, made = tmp_path / "x.ckpt", numbers()
    pickle_writer.write(entries(made, dtype), path, METADATA, threads=threads)
    expected = {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor for name, tensor in made.items()
    }
    theirs = torch.load(path, weights_only=True)
    assert {name: value for name, value in theirs.items() if name != "state_dict"} == METADATA
    ours = tensor_files.read(path)
    assert ours.pickled and ours.metadata == METADATA
    for found in (theirs["state_dict"], ours.tensors):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert all(found[name].dtype == expected[name].dtype for name in expected)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_offsets_beyond_32_bits_have_64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickle_writer, "_FAR", 2000)
    pickle_writer.write(entries(numbers()), tmp_path / "x.ckpt", METADATA)
    theirs = torch.load(tmp_path / "x.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(theirs[name], tensor) for name, tensor in numbers().items())
    assert all(
        torch.equal(tensor, numbers()[name]) for name, tensor in tensor_files.read(tmp_path / "x.ckpt").tensors.items()
    )


def test_types_that_pytorch_files_lack(tmp_path: Path) -> None:
    with pytest.raises(
        MaquetteError, match=r"x\.ckpt: layer\.0\.weight is of the type F8_E4M3, which only \.safetensors"
    ):
        pickle_writer.write(entries(numbers(), torch.float8_e4m3fn), tmp_path / "x.ckpt", {})


@pytest.mark.parametrize("write", [streaming.write, pickle_writer.write])
def test_what_is_known_only_at_the_end_stands_in_the_metadata(write: Callable[..., None], tmp_path: Path) -> None:
    seen: list[str] = []
    write(
        entries(numbers()),
        tmp_path / "x",
        METADATA,
        finish=lambda: METADATA | {"number": f"{len(seen):04}"},
        beside=[partial(seen.append, "x")] * 3,
        threads=2,
    )
    assert tensor_files.read(tmp_path / "x").metadata == METADATA | {"number": "0003"}
    with pytest.raises(ValueError, match="changed its length"):
        write(entries(numbers()), tmp_path / "y", METADATA, finish=lambda: METADATA | {"number": "1" * 20})
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("write", [streaming.write, pickle_writer.write])
def test_all_bytes_are_told(write: Callable[..., None], tmp_path: Path) -> None:
    told: list[int] = []
    write(entries(numbers()), tmp_path / "x", {}, threads=2, on_bytes=told.append)
    assert sum(told) == sum(tensor.nbytes for tensor in numbers().values())


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_leaves_nothing_and_an_older_file_as_it_was(threads: int, tmp_path: Path) -> None:
    def fail() -> Iterable[Tensor]:
        raise MaquetteError("NaN in a tensor")

    (tmp_path / "x.safetensors").write_text("older")
    broken = entries(numbers()) | {"layer.3.weight": Entry(torch.float32, (2,), fail)}
    with pytest.raises(MaquetteError, match="NaN in a tensor"):
        streaming.write(broken, tmp_path / "x.safetensors", {}, threads=threads)
    assert os.listdir(tmp_path) == ["x.safetensors"] and (tmp_path / "x.safetensors").read_text() == "older"
    streaming.write(entries(numbers()), tmp_path / "x.safetensors", {}, threads=threads)
    assert os.listdir(tmp_path) == ["x.safetensors"] and len(safetensors.load(tmp_path / "x.safetensors")) == 28


@pytest.mark.parametrize(("count", "told"), [(1, "fewer"), (3, "more")])
def test_too_few_and_too_many_numbers(count: int, told: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"x has {told} numbers"):
        streaming.write({"x": Entry(torch.float32, (2,), lambda: (torch.zeros(count),))}, tmp_path / "x", {})


@pytest.mark.parametrize("write", [streaming.write, pickle_writer.write])
def test_a_full_disk_is_told_before_anything_is_written(
    write: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr(streaming, "reserved", None)
    with pytest.raises(MaquetteError, match=r"x needs .* kB, but its disk has 1 kB left; make room .*Nothing was"):
        write(entries(numbers()), tmp_path / "deeper" / "x", {})
    assert not (tmp_path / "deeper").exists()


SLOW = """
import sys, time, torch
from maquette.formats import streaming
from maquette.formats.streaming import Entry
def slow():
    print("writing", flush=True)
    time.sleep(60)
    yield torch.zeros(10)
entries = {f"t{i}": Entry(torch.float32, (10,), lambda: (torch.zeros(10),)) for i in range(20)}
streaming.write(entries | {"z": Entry(torch.float32, (10,), slow)}, sys.argv[1], {}, threads=2)
"""


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_leaves_no_file(kill: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(out / "x.safetensors")], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    if kill == signal.SIGINT:  # its thread sleeps on: a second one ends it
        process.send_signal(kill)
        time.sleep(0.2)
    process.kill()
    process.wait()
    nameless = hasattr(os, "O_TMPFILE")
    assert os.listdir(out) == [] if nameless else not (out / "x.safetensors").exists()


def test_where_files_need_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on network disks and on Windows: a hidden name until it is whole, no name when something fails."""
    monkeypatch.delattr(os, "O_TMPFILE")
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.delattr(os, "pwrite")
    during: list[str] = []

    def look() -> Iterable[Tensor]:
        during.extend(os.listdir(tmp_path))
        yield torch.ones(3)

    streaming.write({"x": Entry(torch.float32, (3,), look)}, tmp_path / "x.safetensors", {}, threads=2)
    assert len(during) == 1 and during[0].startswith(".x.safetensors.") and during[0].endswith(".part")
    assert os.listdir(tmp_path) == ["x.safetensors"]
    assert safetensors.load(tmp_path / "x.safetensors")["x"].tolist() == [1, 1, 1]

    def fail() -> Iterable[Tensor]:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        streaming.write({"x": Entry(torch.float32, (3,), fail)}, tmp_path / "y.safetensors", {})
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_large_tensors_share_the_memory(tmp_path: Path) -> None:
    """Two that need more than half of the memory are never computed at the same time."""
    inside, most = [0], [0]

    def large() -> Iterable[Tensor]:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.02)
        yield torch.zeros(3)
        inside[0] -= 1

    made = {f"t{i}": Entry(torch.float32, (3,), large, streaming.MEMORY * 2 // 3) for i in range(6)}
    streaming.write(made, tmp_path / "x", {}, threads=3)
    assert most == [1]


def test_a_mapped_file_reserves_no_memory(tmp_path: Path) -> None:
    """Else a model larger than the memory could not be opened."""
    smaps = Path("/proc/self/smaps")
    if not smaps.exists():
        pytest.skip("only Linux tells")
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(100_000))
    tensor = mapping.mapped(path, 100_000)
    told = smaps.read_text().split(str(path))[1]
    assert "nr" in told[told.index("VmFlags") :].splitlines()[0].split()
    assert tensor.shape == (100_000,)


@pytest.mark.skipif(not hasattr(os, "fdatasync"), reason="this system has no fdatasync")
def test_a_disk_that_fails_while_the_rest_is_computed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system says it once, to the first who asks: it must not be lost, nor a file be left."""
    asked = threading.Event()

    def fails(handle: int) -> None:
        asked.set()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(streaming, "FLUSHED", 1000)
    monkeypatch.setattr(os, "fdatasync", fails)

    def pieces() -> Iterator[Tensor]:
        yield torch.zeros(1000)
        assert asked.wait(60)
        yield torch.zeros(1000)

    entries = {"a": Entry(torch.float32, (2000,), pieces)}
    with pytest.raises(MaquetteError, match=r"x\.safetensors cannot be written: No space left"):
        streaming.write(entries, tmp_path / "x.safetensors", {})
    assert list(tmp_path.iterdir()) == []
