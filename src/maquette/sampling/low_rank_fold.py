"""W + m s B A of a plain LoRA, a few rows at a time, so that nothing but the weights goes through the memory.

Whole, the product of a large layer is written and read again for every factor and for the sum, and each time into
memory that the system must clear first: several times the work of the product itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..adapters.file import Adapter
from ..adapters.parts import scale
from ..formats.streaming import run_all

BLOCK = 1 << 16  # numbers of a block, float32: 256 kB, which a core's own cache holds
_PARTS = {"lora_up.weight", "lora_down.weight", "alpha"}


@dataclass(frozen=True)
class LowRank:
    """up (out, r) and down (r, in·h·w), float32, on the weight's device; factors: what the product is multiplied by."""

    up: Tensor
    down: Tensor
    factors: tuple[float, ...]

    @classmethod
    def of(cls, adapter: Adapter, name: str, weight: Tensor, multiplier: float) -> LowRank | None:
        """A module's change of a weight, where it is a plain LoRA's of the weight's own shape; else None."""
        found = adapter.modules[name].factors
        if not found.keys() <= _PARTS or len(found.keys() - {"alpha"}) < 2:
            return None
        up, down = found["lora_up.weight"], found["lora_down.weight"]
        shape = (len(up), *down.shape[1:])
        same = shape == weight.shape or (*shape, 1, 1) == weight.shape
        if not same or up[0].numel() != len(down) or not weight.is_contiguous() or weight.dtype == torch.float64:
            return None
        up, down = (f.flatten(1).to(weight.device, torch.float32) for f in (up, down))
        left = []
        for factor in (scale(found), multiplier):
            if math.frexp(abs(factor))[0] == 0.5:  # by a power of two B is multiplied exactly, which is less work
                up = up * factor
            else:
                left.append(factor)
        return cls(up, down, tuple(left))

    def added(self, weight: Tensor, into: Tensor | None = None) -> Tensor:
        """A new tensor of the weight's type: the sum, formed in float32 and rounded once. into: a tensor of the same
        shape and type to overwrite instead.
        """
        result = torch.empty_like(weight) if into is None else into
        rows, columns = len(self.up), self.down.shape[1]
        step = rows if weight.is_cuda else max(1, BLOCK // columns)
        scratch = self.down.new_empty(2, min(step, rows), columns)
        before, after = weight.view(rows, columns), result.view(rows, columns)
        for start in range(0, rows, step):
            part = slice(start, min(start + step, rows))
            change, own = scratch[:, : part.stop - start]
            torch.mm(self.up[part], self.down, out=change)
            for factor in self.factors:
                change.mul_(factor)
            if weight.dtype == torch.float32:
                torch.add(change, before[part], out=after[part])
            else:
                own.copy_(before[part])  # a sum of two types takes longer than this copy and the sum of one
                after[part] = change.add_(own)
        return result


class Folds(dict[nn.Parameter, tuple[LowRank, Tensor | None]]):
    """What is still to be added to which parameters, and for each a tensor that may be overwritten."""


def add_all(folds: Folds) -> None:
    """Give every parameter its sum, on a processor one for each thread at a time. `folds` is empty then."""
    with torch.no_grad():
        on_cpu = all(parameter.device.type == "cpu" for parameter in folds)
        tasks = [partial(_add, parameter, *fold) for parameter, fold in folds.items()]
        run_all(tasks, torch.get_num_threads() if on_cpu else 1)
    folds.clear()


def _add(parameter: nn.Parameter, change: LowRank, into: Tensor | None) -> None:
    parameter.data = change.added(parameter.data, into)
