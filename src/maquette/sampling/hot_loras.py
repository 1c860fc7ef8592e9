"""LoRAs that stay in a base's weights from drawing to drawing, until others are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import adapters
from ..adapters.file import Adapter
from ..families.base import BaseModel
from ..fast.replayed import ReplayedDenoiser
from .apply_loras import Applied, add_lora, layers_of
from .lora_tags import Wish


class HotLoras:
    """The weights W + Σ mᵢ ΔWᵢ of a base. Folding costs once per change; `clear` puts back the very tensors.

    denoiser: the base with these weights, as drawing asks it.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.denoiser = ReplayedDenoiser(base, base.network)
        self.applied: list[Applied] = []
        self._wanted: list[Wish] = []
        self._layers: dict[str, nn.Module] | None = None
        self._originals: dict[nn.Parameter, Tensor] = {}

    def set(self, wanted: Sequence[Wish]) -> list[Applied]:
        """Have these LoRAs, in this order, in the weights; nothing is done where they are. What was there leaves.

        Raises MaquetteError for one that does not fit, with no LoRA in the weights then.
        """
        if len(wanted) == len(self._wanted) and all(_same(a, b) for a, b in zip(wanted, self._wanted, strict=True)):
            return self.applied
        spare = {parameter: parameter.data for parameter in self._originals}  # memory that is there already
        self.clear()
        if self._layers is None:
            self._layers = layers_of(self.base)
        try:
            changes: dict[nn.Parameter, Tensor] | None = {} if len(wanted) > 1 else None
            for wish in wanted:
                state_of = wish.adapter, wish.te, wish.unet, self._originals, wish.share, changes, spare
                self.applied.append(add_lora(self.base, self._layers, *state_of))
        except BaseException:
            self.clear()
            raise
        self._wanted = list(wanted)
        return self.applied

    @torch.no_grad()
    def clear(self) -> None:
        """Take all LoRAs out: the parameters hold the same tensors as before, to the bit."""
        for parameter, original in self._originals.items():
            parameter.data = original
        self._originals.clear()
        self._wanted, self.applied = [], []
        self.denoiser.forget()


class AdapterShelf:
    """Adapter files of the last drawings, read once. They are read again when the file has changed."""

    def __init__(self, room: int = 8) -> None:
        self.room = room
        self._held: dict[Path, tuple[tuple[int, int], Adapter]] = {}

    def load(self, path: Path) -> Adapter:
        """As `adapters.load`."""
        state_of = path.stat()
        state = state_of.st_mtime_ns, state_of.st_size
        found = self._held.pop(path, None)
        if found is None or found[0] != state or path.is_dir():
            found = (state, adapters.load(path))
        self._held[path] = found
        while len(self._held) > self.room:
            del self._held[next(iter(self._held))]
        return found[1]


def _same(a: Wish, b: Wish) -> bool:
    return a.adapter is b.adapter and (a.te, a.unet, a.blocks) == (b.te, b.unet, b.blocks)
