"""For every test: no network. Photos that tests build for themselves: good ones, odd ones, broken ones."""

from __future__ import annotations

import ctypes
import gc
import ipaddress
import os
import platform
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import processors
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image

from maquette import openmp  # before torch: decides how threads wait
from maquette.fast import memory

# Python looks for circles of garbage every 700 objects; among the many that all libraries at once make, that was a
# sixth of all the time.
gc.set_threshold(20_000, 20, 20)


def pytest_collection_finish() -> None:
    """What is there before the first test stays, and need not be looked through again and again."""
    gc.collect()
    gc.freeze()


# As a user who has decided it: runs within a test and in its processes have one number of threads.
os.environ.setdefault(openmp.THREADS[0], str(openmp.processors()))

# No test may fail because the machine was busy, nor by luck.
settings.register_profile("steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(params=[True, False], ids=["bf16", "no bf16"])
def has_bf16(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once as on a processor with instructions for bf16 and fp16, once as on one without, wherever the tests run."""
    processors.pretend(monkeypatch, request.param)
    return bool(request.param)


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor with instructions for bf16 and fp16, wherever the test runs."""
    processors.pretend(monkeypatch, True)


@pytest.fixture(autouse=True)
def nothing_waits_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test pulls the plug: what is written need not have reached the disk."""
    monkeypatch.setattr(os, "fsync", os.fstat)  # which refuses what is no open file, too


LIBRARY = ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


@pytest.fixture(autouse=True)
def freed_memory_stays() -> None:
    """As within a training, whose end undoes it, but for the largest: a test's tensors need no fresh pages, a tenth of
    the time of some.
    """
    if LIBRARY is not None:
        LIBRARY.mallopt(memory.MMAP_THRESHOLD, memory.USUAL_MMAP)
        LIBRARY.mallopt(memory.TRIM_THRESHOLD, 4 * memory.USUAL_TRIM)


MakeImage = Callable[..., Image.Image]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection and name look-up but those within this machine, which distributed training needs."""
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def checked_connect(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or _local(address[0]), f"a test tried to reach {address}"
        connect(self, address)

    def checked_look_up(host: Any, *rest: Any, **named: Any) -> Any:
        assert host is None or _local(host), f"a test tried to look up {host}"
        return look_up(host, *rest, **named)

    monkeypatch.setattr(socket.socket, "connect", checked_connect)
    monkeypatch.setattr(socket, "getaddrinfo", checked_look_up)


def _local(host: str | bytes) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name in ("localhost", socket.gethostname())


def _quadrants(width: int = 80, height: int = 60) -> Image.Image:
    """Red top left, green top right, blue bottom left, grey bottom right: shows turns, mirrors and swapped channels."""
    image = Image.new("RGB", (width, height), (128, 128, 128))
    image.paste((220, 30, 30), (0, 0, width // 2, height // 2))
    image.paste((30, 200, 30), (width // 2, 0, width, height // 2))
    image.paste((30, 30, 220), (0, height // 2, width // 2, height))
    return image


@pytest.fixture
def quadrants() -> MakeImage:
    """A function (width, height) -> picture with a different colour in each quarter."""
    return _quadrants


@pytest.fixture
def fault_folder(tmp_path: Path) -> Path:
    """The folder of issue 2's acceptance: three bad files, one animation, and five odd but good photos."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "truncated.jpg", quality=95)
    whole = (folder / "truncated.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.jpg").write_text("Shopping: milk, bread, a new lens.\n", encoding="utf-8")
    _quadrants().save(folder / "good.JPG", quality=95)
    _quadrants().convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    ramp = np.linspace(0, 65535, 80 * 60).reshape(60, 80).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "sixteen.png")
    palette = _quadrants().quantize(8)
    palette.save(folder / "palette.png", transparency=palette.getpixel((79, 59)))
    frames = [Image.new("RGB", (64, 64), (shade, 0, 0)) for shade in (0, 100, 200)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: the stored picture lies on its left side
    _quadrants().transpose(Image.Transpose.ROTATE_90).save(folder / "turned.jpg", exif=exif, quality=95)
    return folder
