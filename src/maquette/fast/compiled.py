"""The repeated blocks of a UNet compiled, each kind once for each of its shapes ("regional compilation").

Compiling the whole network takes minutes and again for every bucket; its transformer and residual blocks are nearly all
of the work, and blocks of the same shape share their code. Layers under adapters compute by plain operations then,
which the compiler joins, instead of `methods.fused` and `fast.packed`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

REGIONS = ("BasicTransformerBlock", "ResnetBlock2D")
VARIANTS = 1024  # of a block: widths, buckets, with and without gradients or adapters


def install(network: nn.Module) -> int:
    """Have every block compiled when it first computes; returns how many there are. Train within `many_variants`."""
    blocks = [module for module in network.modules() if type(module).__name__ in REGIONS]
    for block in blocks:
        block.compile(dynamic=False)
    return len(blocks)


@contextmanager
def many_variants() -> Iterator[None]:
    """Allow so many variants of a block within the block that none ever falls back to running uncompiled: whether it
    did would depend on what the run saw before, and a resumed run would end in other bytes.
    """
    import torch._dynamo.config as settings

    limits = {
        "recompile_limit": max(settings.recompile_limit, VARIANTS),
        "accumulated_recompile_limit": max(settings.accumulated_recompile_limit, 16 * VARIANTS),
    }
    with settings.patch(limits):
        yield


def lacking(device: torch.device) -> str | None:
    """What the compiler needs and this machine does not have, in words."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "Triton (pip install triton) and a graphics card that it knows"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "a C++ compiler (g++)"
    return None


@contextmanager
def off() -> Iterator[None]:
    """Blocks run as they are written inside: pictures have other sizes, for which compiling does not pay."""
    with torch.compiler.set_stance("force_eager"):
        yield
