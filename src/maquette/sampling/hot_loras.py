"""LoRAs that stay in a base's weights from drawing to drawing, until others are asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..families.base import BaseModel
from ..fast import memory
from ..fast.replayed import ReplayedDenoiser
from .apply_loras import Applied, Folded, put_in
from .lora_tags import Wish

# Bytes of weights with other LoRAs that are kept beside: SD1.5's are 0.7e9 in half precision.
LEAST_ROOM = 1_000_000_000
SHARE = 10  # of the machine's memory, where that is more


def room() -> int:
    """Bytes that weights with other LoRAs may take beside those in use."""
    return max(LEAST_ROOM, (memory.installed() or 0) // SHARE)


class HotLoras:
    """The weights W + Σ mᵢ ΔWᵢ of a base. Folding costs once per change; `clear` puts back the very tensors. A plain
    LoRA that is alone in a large layer is computed beside it instead (`thin_products`).

    On a processor, where folding takes longest and memory is not as scarce as a graphics card's, the weights with the
    last LoRAs stay beside as long as there is `room`, so that going back to them is free. denoiser: the base with these
    weights, as drawing asks it.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.denoiser = ReplayedDenoiser(base, base.network)
        self._now = Folded()
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._hooks: list[RemovableHandle] = []
        self._kept: list[Folded] = []  # the oldest first

    def set(self, wanted: Sequence[Wish]) -> list[Applied]:
        """Have these LoRAs, in this order, in the weights; nothing is done where they are. What was there leaves.

        Raises MaquetteError for one that does not fit, with no LoRA in the weights then.
        """
        if self._now.is_for(wanted):
            return self._now.applied
        left = self._take_out()
        kept = next((folded for folded in self._kept if folded.is_for(wanted)), None) if wanted else None
        if kept is not None:
            self._kept.remove(kept)  # it is in use, and must not be written into as spare memory
        spare = self._keep(left)
        if wanted:
            self._put_in(kept or Folded.of(self.base, wanted, spare, beside=True))
        return self._now.applied

    def _keep(self, left: Folded) -> dict[nn.Parameter, Tensor]:
        """Keep these weights beside, and of the others as many as there is room for. Returns weights that nobody needs
        any more: memory that is there already.
        """
        spare: dict[nn.Parameter, Tensor] = {}
        if left.wanted and left.on_cpu:
            self._kept.append(left)
        elif left.wanted:
            spare |= left.weights
        most = room()
        while self._kept and sum(folded.size for folded in self._kept) > most:
            spare |= self._kept.pop(0).weights
        return spare

    def _put_in(self, folded: Folded) -> None:
        self._originals = put_in(folded.weights)
        self._hooks = [module.register_forward_hook(thin.added) for module, thin in folded.beside.items()]
        self._now = folded

    def _take_out(self) -> Folded:
        """Put the original tensors back. Returns what was there instead."""
        left = self._now
        put_in(self._originals)
        for hook in self._hooks:
            hook.remove()
        self._originals, self._now, self._hooks = {}, Folded(), []
        self.denoiser.forget()
        return left

    def clear(self) -> None:
        """Take all LoRAs out and keep none: the parameters hold the same tensors as before, to the bit."""
        self._take_out()
        self._kept.clear()
