"""B A x beside a layer's W x, of a plain LoRA, where that is next to nothing against the layer's own product.

Large layers hold most of the weights, and writing them anew is what a change of LoRAs takes; the two products of a
small rank beside them take a few thousandths of a step. Layers that see nothing but the text are computed once for a
prompt. What is beside depends on the LoRA and the layer alone, so that a picture is the same whatever was drawn before.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from torch import Tensor, nn

from ..adapters.module_names import of_text_encoder
from .low_rank_fold import LowRank

MOST = 1 / 32  # of the layer's own multiplications
_OF_TEXT = re.compile(r"\.attn2\.to_[kv]$")


@dataclass(frozen=True)
class Thin:
    """up (out, r) with the strength in it, and down (r, in), of the layer's type."""

    up: Tensor
    down: Tensor

    @classmethod
    def of(cls, name: str, module: nn.Module, change: LowRank) -> Thin | None:
        """For a linear layer or a 1 x 1 convolution on a processor, where it costs little; else None."""
        if not isinstance(module, nn.Linear | nn.Conv2d) or module.weight.device.type != "cpu":
            return None
        (outer, rank), inner = change.up.shape, change.down.shape[1]
        if isinstance(module, nn.Conv2d) and (module.kernel_size, module.stride) != ((1, 1), (1, 1)):
            return None
        if not (of_text_encoder(name) or _OF_TEXT.search(name) or rank * (1 / outer + 1 / inner) <= MOST):
            return None
        kind = module.weight.dtype
        return cls((change.up * math.prod(change.factors)).to(kind), change.down.to(kind))

    def added(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        """The layer's output (..., out) or (B, out, h, w) for (..., in) or (B, in, h, w), and this to it; a hook."""
        x = inputs[0]
        if isinstance(module, nn.Conv2d):
            more = self.up @ (self.down @ x.flatten(2))  # (B, out, hw)
            return output.add_(more.view(output.shape))
        h = x.reshape(-1, x.shape[-1]) @ self.down.t()  # (n, r)
        output.view(-1, output.shape[-1]).addmm_(h, self.up.t())
        return output

    @property
    def size(self) -> int:
        """Bytes."""
        return (self.up.numel() + self.down.numel()) * self.up.itemsize
