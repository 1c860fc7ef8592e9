"""The card and its two ceilings: memory copies and matrix products."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from .rows import Rows

PACKAGES = ("torch", "diffusers", "transformers", "peft", "triton", "numpy", "safetensors")


def describe(device: str, out: Path) -> None:
    """Name the machine and measure a large copy (bytes read and written) and matrix products."""
    rows = Rows("machine", out)
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        rows.add(card=card.name, gigabytes=card.total_memory / 1e9, multiprocessors=card.multi_processor_count)
        rows.add(
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            capability=str(torch.cuda.get_device_capability()),
        )
    rows.add(python=platform.python_version(), cores=os.cpu_count(), processor=torch.backends.cpu.get_cpu_capability())
    rows.add(**{name: _version(name) for name in PACKAGES})
    side, size = (8192, 1 << 30) if device == "cuda" else (1024, 1 << 26)
    buffer = torch.empty(size, dtype=torch.uint8, device=device).random_(0, 255)
    rows.add(copy_gigabytes_per_second=2 * size / _best(lambda: buffer.clone(), device) / 1e9)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        a = torch.randn(side, side, device=device, dtype=dtype)
        rows.add(product=str(dtype), teraflops=2 * side**3 / _best(lambda a=a: a @ a, device) / 1e12)
    rows.end()


def wait(device: str) -> None:
    """Until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _best(work: object, device: str, times: int = 5) -> float:
    """Fewest seconds of a call."""
    assert callable(work)
    found = []
    for _ in range(times):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        found.append(time.perf_counter() - began)
    return min(found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
