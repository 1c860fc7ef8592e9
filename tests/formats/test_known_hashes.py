"""Hashes of large model files that are remembered: computed once, and anew for every change of the file."""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from maquette import files
from maquette.formats import known_hashes
from maquette.formats.known_hashes import files_sha256, sha256_of


@pytest.fixture
def hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes are read for a hash."""
    found: list[str] = []

    def noted(original: Callable[[Path], str]) -> Callable[[Path], str]:
        def read(path: Path) -> str:
            found.append(path.name)
            return original(path)

        return read

    for name in ("file_sha256", "_sha256_of_large"):
        monkeypatch.setattr(known_hashes, name, noted(getattr(known_hashes, name)))
    monkeypatch.setattr(known_hashes, "_PORTION", 8)
    monkeypatch.setattr(known_hashes, "LEAST", 10)
    monkeypatch.setattr(known_hashes, "_SETTLED", -1.0)
    monkeypatch.setenv("MAQUETTE_CACHE", str(tmp_path / "cache"))
    return found


def model(folder: Path, data: bytes, name: str = "model.safetensors") -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def test_a_file_is_read_once(tmp_path: Path, hashed: list[str]) -> None:
    path, other = model(tmp_path, b"a model of many bytes"), model(tmp_path, b"another of its length", "b.safetensors")
    for _ in range(3):
        assert sha256_of(path) == hashlib.sha256(b"a model of many bytes").hexdigest()
        assert sha256_of(other) == hashlib.sha256(b"another of its length").hexdigest()
    assert hashed == ["model.safetensors", "b.safetensors"]
    both = hashlib.sha256(b"".join(hashlib.sha256(p.read_bytes()).digest() for p in (path, other))).hexdigest()
    assert files_sha256([path, other]) == both and len(hashed) == 2


def test_a_file_system_without_memory_maps(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENODEV, "No such device")

    monkeypatch.setattr(mmap, "mmap", refuse)
    assert sha256_of(model(tmp_path, b"a model of many bytes")) == hashlib.sha256(b"a model of many bytes").hexdigest()


def test_a_changed_file_is_read_again(tmp_path: Path, hashed: list[str]) -> None:
    path = model(tmp_path, b"a model of many bytes")
    sha256_of(path)
    stamp = path.stat()
    path.write_bytes(b"A MODEL OF MANY BYTES")
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as tools do that keep a file's date
    assert sha256_of(path) == hashlib.sha256(b"A MODEL OF MANY BYTES").hexdigest()
    os.replace(model(tmp_path, b"one moved in its place", "new"), path)
    assert sha256_of(path) == hashlib.sha256(b"one moved in its place").hexdigest()
    assert len(hashed) == 3


def test_small_and_fresh_files_are_not_remembered(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = model(tmp_path, b"9 bytes!!")
    assert [sha256_of(small) for _ in range(2)] == [hashlib.sha256(b"9 bytes!!").hexdigest()] * 2
    monkeypatch.setattr(known_hashes, "_SETTLED", 3600.0)
    fresh = model(tmp_path, b"written a moment ago", "fresh")
    assert len({sha256_of(fresh) for _ in range(2)}) == 1
    assert hashed == ["model.safetensors"] * 2 + ["fresh"] * 2 and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", ["", "[1]", '{"%s": 3}', '{"%s": {"state": %s, "sha256": "x"}}'])
def test_damaged_memory_is_no_fault(damage: str, tmp_path: Path, hashed: list[str]) -> None:
    path = model(tmp_path, b"a model of many bytes")
    right = sha256_of(path)
    memory = tmp_path / "cache" / "model_hashes.json"
    state = json.dumps(json.loads(memory.read_text())[str(path)]["state"])
    memory.write_text(damage.replace("%s", str(path), 1).replace("%s", state))
    assert sha256_of(path) == right and len(hashed) == 2
    assert sha256_of(path) == right and len(hashed) == 2  # mended


def test_a_place_that_cannot_be_written_is_no_fault(
    tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model(tmp_path, b"a model of many bytes")
    monkeypatch.setenv("MAQUETTE_CACHE", str(model(tmp_path, b"a file", "no-folder")))
    assert sha256_of(path) == sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.delenv("MAQUETTE_CACHE")

    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(known_hashes, "cache_of_user", no_home)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_only_the_last_files_are_remembered(tmp_path: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_hashes, "_MOST", 2)
    paths = [model(tmp_path, f"model number {i}".encode(), str(i)) for i in range(3)]
    for path in [*paths, *reversed(paths)]:
        sha256_of(path)
    assert hashed == ["0", "1", "2", "0"]


def test_where_the_memory_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAQUETTE_CACHE", "/somewhere")
    assert files.cache_of_user() == Path("/somewhere")
    monkeypatch.delenv("MAQUETTE_CACHE")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    folders = {"linux": ".cache", "darwin": "Library/Caches", "win32": "AppData/Local"}
    for system, folder in folders.items():
        monkeypatch.setattr(files.sys, "platform", system)
        assert files.cache_of_user() == tmp_path / folder / "maquette"
    monkeypatch.setattr(files.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert files.cache_of_user() == Path("/caches/maquette")
