"""W + m s B A of a plain LoRA, a few rows at a time, so that nothing but the weights goes through the memory.

Whole, the product of a large layer is written and read again for every factor and for the sum, and each time into
memory that the system must clear first: several times the work of the product itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
        step = rows if weight.is_cuda else min(max(1, BLOCK // columns), rows)
        change, own = self.down.new_empty(2, step, columns).unbind()
        plain = not self.factors and len(self.down) > 1  # of rank 1 a fused product and sum rounds otherwise
        blocks = (x.split(step) for x in (self.up, weight.view(rows, columns), result.view(rows, columns)))
        for up, before, after in zip(*blocks, strict=True):
            if len(up) < step:  # the last ones
                change, own = change[: len(up)], own[: len(up)]
            # a sum of two types takes longer than this copy and the sum of one
            wide = before if weight.dtype == torch.float32 else own.copy_(before)
            total = after if wide is before else own
            if plain:
                torch.addmm(wide, up, self.down, out=total)
            else:
                torch.add(self._product(up, change), wide, out=total)
            if total is not after:
                after.copy_(total)
        return result

    def _product(self, up: Tensor, out: Tensor) -> Tensor:
        """Of some rows, times the factors; written to `out`."""
        torch.mm(up, self.down, out=out)
        for factor in self.factors:
            out.mul_(factor)
        return out


def add_all(
    products: Mapping[nn.Parameter, LowRank], spare: Mapping[nn.Parameter, Tensor]
) -> dict[nn.Parameter, Tensor]:
    """Every parameter's sum with its product, on a processor one for each thread at a time. spare: tensors of the same
    shape and type, to be overwritten.
    """
    made: dict[nn.Parameter, Tensor] = {}

    def add(parameter: nn.Parameter, product: LowRank) -> None:
        with torch.no_grad():
            made[parameter] = product.added(parameter.data, spare.get(parameter))

    on_cpu = all(parameter.device.type == "cpu" for parameter in products)
    tasks = [partial(add, parameter, product) for parameter, product in products.items()]
    run_all(tasks, torch.get_num_threads() if on_cpu else 1)
    return made
