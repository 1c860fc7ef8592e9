"""What decides the last bits of a run besides its settings: deterministic kernels on CUDA, the number of threads on a
CPU (sums are divided among them), the device and the versions.
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

from .. import __version__, openmp
from ..errors import MaquetteError
from ..parsing import read_object

USUAL_THREADS = torch.get_num_threads()  # as torch chose them, before anybody had a reason to change them
LARGEST = 100_000  # bytes of computer.json
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"  # without it cuBLAS may add in another order each time


ATTENTION = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
"""Kernels of attention that training uses. cuDNN's, which PyTorch prefers on Hopper cards, is not among them: in bf16
its way back with the 77 keys of a prompt gave gradients that are not finite in 65 of 96 runs on an H200 (PyTorch
2.11), at inputs for which the others agree.
"""
IN_ORDER = (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH)  # the memory-efficient one adds in any order


@contextmanager
def kernels(deterministic: bool) -> Iterator[None]:
    """Use sound kernels of attention within the block; if `deterministic`, only kernels that give the same bits each
    time: then operations without one raise RuntimeError.
    """
    if not deterministic:
        with sdpa_kernel([*ATTENTION]):
            yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark, os.environ.get(WORKSPACE)
    os.environ[WORKSPACE] = before[2] or ":4096:8"
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # else the fastest convolution of the day is taken
    try:
        with sdpa_kernel([*IN_ORDER]):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]
        if before[2] is None:
            del os.environ[WORKSPACE]


def environment(device: torch.device, processes: int) -> dict[str, Any]:
    """Describe what the last bits of a run depend on besides its settings: versions, device, processes, threads."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()
    return {
        "maquette": __version__,
        "torch": torch.__version__,
        "device": name,
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def began_on(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Read the environment in which a run began from computer.json; also a sentence when it is damaged.

    Runs of older versions have none: {}.
    """
    if not file.exists():
        return {}, []
    try:
        written = read_object(file, LARGEST)
    except MaquetteError as error:
        return {}, [_unknown(str(error))]
    kinds = {"maquette": str, "torch": str, "device": str, "processes": int, "threads": int}
    known = {key: written[key] for key, kind in kinds.items() if type(written.get(key)) is kind}
    return known, [] if known.keys() == kinds.keys() else [_unknown(f"{file} is damaged: not all of it can be read.")]


def _unknown(fault: str) -> str:
    return f"{fault} Whether the run began under the same conditions, so that its last digits agree, cannot be told."


def suits_one_thread(base: str) -> bool:
    """Whether one thread is best for a base, and nobody has decided otherwise; see `one_thread_for`."""
    return base == "pocket" and not openmp.number_decided()


@contextmanager
def one_thread_for(base: str) -> Iterator[None]:
    """Compute with one thread within the block where the base is pocket.

    Its layers are so small that a second thread brings a tenth on an idle machine, and where other programs are at work
    the two wait for each other most of the time: a training is eight times as slow then (docs/measurements/speed.md).
    A number that the user or a program that calls this one has chosen stays.
    """
    threads = torch.get_num_threads()
    if threads != USUAL_THREADS or not suits_one_thread(base):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def pinned_threads(began: Mapping[str, Any], processes: int) -> Iterator[None]:
    """Use as many threads within the block as a run began with, unless more processes share it or cores lack.

    began: what `environment` returned then; {} where it is not known.
    """
    threads, wanted = torch.get_num_threads(), began.get("threads", 0)
    if processes == began.get("processes") and 0 < wanted <= max(threads, openmp.processors()):
        torch.set_num_threads(wanted)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def differences(began: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List what has differences: "torch 2.13.0, now 2.14.0"."""
    return [f"{key} {value}, now {now[key]}" for key, value in began.items() if value != now.get(key, value)]


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # only Linux has it
        found = None
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{name} with {torch.backends.cpu.get_cpu_capability()}"
