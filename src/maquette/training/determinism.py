"""The same bits each time: on CUDA by operations that give them, where it would choose faster ones, and on a CPU, whose
operations always do, by as many threads as before, since sums are divided among them.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from .. import __version__
from ..errors import MaquetteError
from ..files import read_object

LARGEST = 100_000  # bytes of computer.json
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS may add in another order each time


@contextmanager
def same_bits(wanted: bool) -> Iterator[None]:
    """Within the block, if `wanted`: deterministic kernels only; an operation that has none raises RuntimeError."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)
    os.environ[WORKSPACE] = before[2] or ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # else the fastest convolution of the day is taken
    try:
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # the memory-efficient one adds in any order
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if before[2] is None:
            del os.environ[WORKSPACE]


def computer(device: torch.device, processes: int) -> dict[str, Any]:
    """Everything besides a run's settings on which the last bits of its numbers depend."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {
        "maquette": __version__,
        "torch": torch.__version__,
        "device": name,
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def began_on(file: Path) -> tuple[dict[str, Any], list[str]]:
    """What computer.json tells of the computer on which a run began, and a sentence when it is damaged.

    Runs of older versions have none: {}.
    """
    if not file.exists():
        return {}, []
    try:
        told = read_object(file, LARGEST)
    except MaquetteError as error:
        return {}, [_unknown(str(error))]
    kinds = {"maquette": str, "torch": str, "device": str, "processes": int, "threads": int}
    known = {key: told[key] for key, kind in kinds.items() if type(told.get(key)) is kind}
    return known, [] if known.keys() == kinds.keys() else [_unknown(f"{file} is damaged: not all of it can be read.")]


def _unknown(fault: str) -> str:
    return f"{fault} Whether the run began under the same conditions, so that its last digits agree, cannot be told."


@contextmanager
def threads_of(began: Mapping[str, Any], processes: int) -> Iterator[None]:
    """Within the block: as many threads as a run began with, unless more processes share it or there are fewer cores.

    began: what `computer` said then; {} where nobody wrote it down.
    """
    threads, wanted = torch.get_num_threads(), began.get("threads", 0)
    if processes == began.get("processes") and 0 < wanted <= max(threads, os.cpu_count() or 1):
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def differences(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was: "torch 2.13.0, now 2.14.0"."""
    return [f"{key} {value}, now {now[key]}" for key, value in began.items() if value != now.get(key, value)]


def _cpu() -> str:
    try:
        told = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # only Linux has it
        told = None
    name = told[1] if told else platform.processor() or platform.machine()
    return f"{name} with {torch.backends.cpu.get_cpu_capability()}"
