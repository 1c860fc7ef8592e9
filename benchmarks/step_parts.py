"""The parts of a training step, each with and without what makes it quick: processor time of one thread.

OMP_NUM_THREADS=1 python -m benchmarks.step_parts
OMP_NUM_THREADS=1 python -m benchmarks.step_parts --drawing    # layers of two rows, forward alone, at rest
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from maquette.families.unet.blocks import Upsample2D
from maquette.fast import attention, memory, packed, resting

REPEATS = 7


def best(work: Callable[[], object]) -> float:
    """Milliseconds of the quickest of some runs."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) * 1000)
    return min(times[1:])


def passes(layer: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], object]:
    """A pass there and back, for the inputs' gradients."""
    inputs = tuple(x.detach().requires_grad_(True) for x in inputs)

    def work() -> object:
        y = layer(*inputs)
        return torch.autograd.grad(y, inputs, torch.ones_like(y))

    return work


def shapes_of(rows: int) -> dict[str, tuple[nn.Module, Tensor]]:
    """Convolutions and linear layers of Stable Diffusion 1.5, and an input of so many rows for each."""
    shapes: dict[str, tuple[nn.Module, Tensor]] = {}
    for width, side in ((320, 64), (320, 32), (640, 16), (1280, 8), (1280, 4)):
        shapes[f"3 x 3 convolution, {side} x {side} pixels, {width} channels"] = (
            nn.Conv2d(width, width, 3, padding=1),
            torch.randn(rows, width, side, side),
        )
    for width, side in ((640, 16), (1280, 8)):
        shapes[f"enlargement of {side} x {side} pixels and 3 x 3 convolution, {width} channels"] = (
            Upsample2D(width),
            torch.randn(rows, width, side, side),
        )
    shapes["3 x 3 convolution with stride 2, 8 x 8 pixels, 1280 channels"] = (
        nn.Conv2d(1280, 1280, 3, stride=2, padding=1),
        torch.randn(rows, 1280, 8, 8),
    )
    for width, side in ((320, 32), (640, 16), (1280, 8), (1280, 4)):
        shapes[f"linear layer, {side * side} tokens, {width} features"] = (
            nn.Linear(width, width),
            torch.randn(rows, side * side, width),
        )
    return shapes


def layers(dtype: torch.dtype) -> None:
    """Plain and laid out, there and back."""
    for name, (layer, x) in shapes_of(1).items():
        network, x = nn.Sequential(layer).requires_grad_(False).to(dtype), x.to(dtype)
        with FlopCounterMode(display=False) as counter:
            network(x)
        plain = best(passes(network, x))
        packed.install(network)
        line(name, dtype, plain, best(passes(network, x)), 2 * counter.get_total_flops())


@torch.no_grad()
def drawing(dtype: torch.dtype) -> None:
    """Plain and at rest, of a prompt and its negative; what does not rest is left out."""
    for name, (layer, x) in shapes_of(2).items():
        network, x = nn.Sequential(layer).requires_grad_(False).to(dtype), x.to(dtype)
        with FlopCounterMode(display=False) as counter:
            network(x)
        plain, answer = best(lambda network=network, x=x: network(x)), network(x)
        if resting.install(network):
            apart = f", {(network(x) - answer).abs().max():.0e} apart"
            line(name + apart, dtype, plain, best(lambda network=network, x=x: network(x)), counter.get_total_flops())


def product(dtype: torch.dtype) -> None:
    """What the layers can at best come near to."""
    side = 2048
    a = torch.randn(side, side).to(dtype)
    milliseconds = best(lambda: a @ a)
    line("matrix product, 2048 x 2048", dtype, milliseconds, milliseconds, 2 * side**3)


def attentions() -> None:
    """PyTorch's fused kernel and plain products, bf16."""
    fused = nn.functional.scaled_dot_product_attention
    for tokens, context, width in ((4096, 4096, 40), (1024, 1024, 40), (1024, 77, 40), (256, 256, 80)):
        q, k, v = (torch.randn(1, n, 8, width).bfloat16().transpose(1, 2) for n in (tokens, context, context))
        name = f"attention, {tokens} to {context} tokens, 8 heads of {width}"
        line(name, torch.bfloat16, best(passes(fused, q, k, v)), best(passes(attention.attend, q, k, v)))


def faults() -> None:
    """Pages asked of the system by making and freeing 20 tensors of 1 to 64 MB."""
    sizes = [int(n) for n in torch.randint(1 << 18, 1 << 24, (20,), generator=torch.Generator().manual_seed(0))]

    def pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        _ = [torch.ones(size) for size in sizes]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    usual = min(pages() for _ in range(REPEATS))
    memory.keep()
    print(f"| page faults of 20 tensors of 1 to 64 MB | | {usual} | {min(pages() for _ in range(REPEATS))} | | |")


def line(name: str, dtype: torch.dtype, plain: float, fast: float, flops: int | None = None) -> None:
    """A row of the table; flops: of the plain way, for the speed that the quick one reaches."""
    kind = {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]
    reached = f"{flops / fast / 1e6:.0f} GFLOP/s" if flops else ""
    print(f"| {name} | {kind} | {plain:.1f} ms | {fast:.1f} ms | {plain / fast:.2f} | {reached} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawing", action="store_true")
    torch.set_num_threads(1)
    print("| part | type | plain | quick | times | quick |\n|---|---|---|---|---|---|")
    if parser.parse_args().drawing:
        drawing(torch.bfloat16)
        drawing(torch.float32)
        return
    faults()  # from here on freed memory is kept, as in training
    for dtype in (torch.bfloat16, torch.float32):
        product(dtype)
        layers(dtype)
    attentions()


if __name__ == "__main__":
    main()
