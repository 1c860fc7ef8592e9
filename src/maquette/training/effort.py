"""Time and memory of training, estimated from the shapes of a base's UNet and one measurement of this machine.

Rough by nature: within a factor of two or three. `Effort.how` says how the numbers came about, and is shown with them.
"""

from __future__ import annotations

import ctypes
import math
import re
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Share of a large matrix product's speed that training is taken to reach. An assumption, stated in `how`.
CPU_SHARE, GPU_SHARE = 0.5, 0.3
BACKWARD = 2.1  # times the forward work: the frozen weights need no gradients, the adapter's are small
KEPT = 3.0  # copies of each layer's output that the backward pass needs: the output, its norm, its activation
PROBE = 1024  # side of the matrices that are multiplied
PROBE_SECONDS = 0.1  # of processor time that they are multiplied for


@dataclass(frozen=True)
class Effort:
    """Estimates for a run. None for a base whose layer names are of no known kind."""

    seconds: float
    memory_bytes: int
    how: str


def forward_work(shapes: Mapping[str, tuple[int, ...]], cells: int) -> tuple[float, float] | None:
    """(FLOP, output elements) of one forward pass of a UNet over one latent of `cells` cells; 77 text tokens.

    shapes: weights in diffusers' or the original naming. A layer at level k sees cells / 4^k positions.
    """
    deepest = max((level for name in shapes if (level := _depth(name)) is not None), default=None)
    if deepest is None:
        return None
    flop = outputs = 0.0
    for name, shape in shapes.items():
        if len(shape) < 2:
            continue
        positions = cells / 4 ** _level(name, deepest)
        if re.search(r"time_emb|time_embed|emb_layers|label_emb|add_embedding", name):
            positions = 1.0
        elif re.search(r"attn2\.to_[kv]\.", name):
            positions = 77.0
        flop += 2 * math.prod(shape) * positions
        outputs += shape[0] * positions
        if re.search(r"attn1\.to_q\.", name):
            flop += 4 * positions**2 * shape[0]  # every position looks at every other
    return flop, outputs


def _depth(name: str) -> int | None:
    """Level of an encoder layer, counted from the full resolution; None for other layers."""
    match = re.search(r"(?:^|\.)(down_blocks|input_blocks)\.(\d+)\.", name)
    if match is None:
        return None
    return int(match[2]) if match[1] == "down_blocks" else int(match[2]) // 3


def _level(name: str, deepest: int) -> int:
    """How often the picture has been halved where a layer works."""
    down = _depth(name)
    if down is not None:
        return min(deepest, down + (".downsamplers." in name))
    up = re.search(r"(?:^|\.)(up_blocks|output_blocks)\.(\d+)\.", name)
    if up is not None:
        block = int(up[2]) if up[1] == "up_blocks" else int(up[2]) // 3
        return max(0, deepest - block - (".upsamplers." in name))
    return deepest if "mid" in name else 0


def estimate_effort(
    shapes: Mapping[str, tuple[int, ...]], cells: float, pictures: int, batch_size: int, adapter_numbers: int
) -> Effort | None:
    """Time for so many pictures of `cells` latent cells on average, and the memory of a step.

    shapes: the UNet's weights. adapter_numbers: how many numbers are trained.
    """
    work = forward_work(shapes, max(1, round(cells)))
    if work is None:
        return None
    flop, outputs = work
    speed, share, bytes_each, device = _speed()
    seconds = training_seconds(pictures, flop, speed * share)
    memory = training_memory(shapes, outputs * batch_size, bytes_each) + adapter_numbers * 16
    # of an adapter's number: weight, gradient, two moments
    how = (
        f"{flop / 1e9:.3g} GFLOP per picture forward, {BACKWARD} times that to train, at an assumed {share:.0%} of the "
        f"{speed / 1e9:.3g} GFLOP/s that this {device} just reached in a matrix product; within a factor of three, "
        "and longer where other programs work at the same time"
    )
    return Effort(seconds, int(memory), how)


def training_seconds(pictures: int, flop: float, speed: float) -> float:
    """Time for so many pictures. flop: of one, forward; speed: FLOP/s that training reaches."""
    return pictures * flop * BACKWARD / speed


def training_memory(shapes: Mapping[str, tuple[int, ...]], outputs: float, bytes_each: int) -> float:
    """Bytes of the frozen weights, and of what a step keeps. outputs: elements of all layers for the whole batch."""
    weights = sum(math.prod(shape) for shape in shapes.values()) * bytes_each
    return weights + outputs * KEPT * bytes_each


def has_card() -> bool:
    """Whether PyTorch computes on a graphics card here. Where there is no driver of one it is not asked: loading it
    takes a second.
    """
    if "torch" not in sys.modules and not has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def has_driver() -> bool:
    """Whether there is a driver of NVIDIA's or AMD's cards; PyTorch is not asked."""
    if Path("/dev/kfd").exists():
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def _speed() -> tuple[float, float, int, str]:
    """FLOP/s of a matrix product, the share that training reaches, bytes per number, and the device's name."""
    if not has_card():
        import numpy as np

        square = np.ones((PROBE, PROBE), np.float32)
        return processor_speed(lambda: square @ square, 2 * PROBE**3), CPU_SHARE, 4, "CPU"
    import torch

    a = torch.ones(PROBE * 4, PROBE, device="cuda", dtype=torch.bfloat16)
    b = torch.ones(PROBE, PROBE, device=a.device, dtype=a.dtype)
    flop, best = 2 * a.shape[0] * PROBE**2, math.inf
    for _ in range(4):
        began = time.perf_counter()
        a @ b
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return flop / best, GPU_SHARE, 2, "GPU"


def processor_speed(
    work: Callable[[], object], flop: float, clock: Callable[[], float] = time.thread_time, least: float = PROBE_SECONDS
) -> float:
    """FLOP/s of some work of `flop` operations, as if no other program were running.

    By processor time of this thread, not by the clock on the wall: what other programs take meanwhile does not count.
    It is repeated until `least` seconds have been counted, since such clocks may tick in hundredths (Windows).
    """
    work()  # the first time, libraries make themselves ready
    began, done = clock(), 0
    while (spent := clock() - began) < least:
        work()
        done += 1
    return done * flop / spent
