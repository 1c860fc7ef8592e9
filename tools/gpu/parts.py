"""The parts, in the order in which they are run: what is most likely to break first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path


@dataclass(frozen=True)
class Part:
    """A check or measurement: `run(device, out)` prints, writes out/NAME.json and exits with an error if it fails."""

    what: str
    module: str
    function: str
    limit: float  # seconds

    def run(self, device: str, out: Path) -> None:
        work: Callable[[str, Path], None] = getattr(import_module(f"tools.gpu.{self.module}"), self.function)
        work(device, out)


PARTS = {
    "machine": Part("the card, and what it reaches", "machine", "describe", 60),
    "methods": Part("two steps of every method, losses as on the CPU", "smoke", "methods", 150),
    "resume": Part("a run stopped and resumed ends in the same bytes", "smoke", "resume", 90),
    "graphs": Part("passes recorded as CUDA graphs, and not: the same losses", "smoke", "graphs", 90),
    "types": Part("bf16 and fp16, training and drawing", "smoke", "types", 90),
    "steps": Part("a training step against PEFT's and LyCORIS's", "speed", "steps", 300),
    "memory": Part("peak memory of a step beside its estimate", "speed", "memory", 120),
    "drawing": Part("pictures against diffusers' pipeline", "drawing", "compare", 120),
    "compile": Part("compiled blocks: the same losses", "smoke", "compiled", 150),
}
