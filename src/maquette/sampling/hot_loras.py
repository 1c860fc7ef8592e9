"""LoRAs that stay in a base's weights from drawing to drawing, until others are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .. import adapters
from ..adapters.file import Adapter
from ..families.base import BaseModel
from ..fast import memory
from ..fast.replayed import ReplayedDenoiser
from .apply_loras import Applied, Changes, add_lora, changed_once, layers_of
from .lora_tags import Wish
from .thin_products import Thin

# Bytes of weights with other LoRAs that are kept beside: SD1.5's are 0.7e9 in half precision.
LEAST_ROOM = 1_000_000_000
SHARE = 10  # of the machine's memory, where that is more


def room() -> int:
    """Bytes that weights with other LoRAs may take beside those in use."""
    return max(LEAST_ROOM, (memory.installed() or 0) // SHARE)


@dataclass(eq=False)
class Folded:
    """Weights with LoRAs in them: what was asked for, what became of it, the parameters that differ, and what is
    computed beside layers.
    """

    wanted: list[Wish] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    weights: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    beside: dict[nn.Module, Thin] = field(default_factory=dict)

    def is_for(self, wanted: Sequence[Wish]) -> bool:
        return len(wanted) == len(self.wanted) and all(map(_same, wanted, self.wanted))

    @property
    def size(self) -> int:
        """Bytes of the weights and of what is beside."""
        weights = sum(tensor.numel() * tensor.itemsize for tensor in self.weights.values())
        return weights + sum(thin.size for thin in self.beside.values())

    @property
    def on_cpu(self) -> bool:
        return all(tensor.device.type == "cpu" for tensor in self.weights.values())


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
        self.applied: list[Applied] = []
        self._wanted: list[Wish] = []
        self._layers: dict[str, nn.Module] | None = None
        self._originals: dict[nn.Parameter, Tensor] = {}
        self._beside: dict[nn.Module, Thin] = {}
        self._hooks: list[RemovableHandle] = []
        self._kept: list[Folded] = []  # the oldest first

    def set(self, wanted: Sequence[Wish]) -> list[Applied]:
        """Have these LoRAs, in this order, in the weights; nothing is done where they are. What was there leaves.

        Raises MaquetteError for one that does not fit, with no LoRA in the weights then.
        """
        if Folded(self._wanted).is_for(wanted):
            return self.applied
        left = self._take_out()
        found = next((folded for folded in self._kept if folded.is_for(wanted)), None) if wanted else None
        if found is not None:
            self._kept.remove(found)  # it is in use, and must not be written into as spare memory
        spare = self._keep(left)
        if found is not None:
            self._put_in(found)
        elif wanted:
            self._fold(wanted, spare)
        return self.applied

    def _fold(self, wanted: Sequence[Wish], spare: dict[nn.Parameter, Tensor]) -> None:
        if self._layers is None:
            self._layers = layers_of(self.base)
        try:
            alone = changed_once(self._layers, [(wish.adapter, wish.te, wish.unet, wish.share) for wish in wanted])
            beside: dict[nn.Module, Thin] = {}
            changes = Changes(alone, self._originals, spare=spare, beside=beside)
            for wish in wanted:
                how = wish.adapter, wish.te, wish.unet, changes, wish.share
                self.applied.append(add_lora(self.base, self._layers, *how))
            self._have_beside(beside)
        except BaseException:
            self.clear()
            raise
        self._wanted = list(wanted)

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
        """Have weights that were folded before."""
        self._originals = {parameter: parameter.data for parameter in folded.weights}
        for parameter, tensor in folded.weights.items():
            parameter.data = tensor
        self._have_beside(folded.beside)
        self._wanted, self.applied = folded.wanted, folded.applied

    def _have_beside(self, beside: dict[nn.Module, Thin]) -> None:
        self._beside = beside
        self._hooks = [module.register_forward_hook(thin.added) for module, thin in beside.items()]

    def _take_out(self) -> Folded:
        """Put the original tensors back. Returns what was there instead."""
        weights = {parameter: parameter.data for parameter in self._originals}
        left = Folded(self._wanted, self.applied, weights, self._beside)
        for parameter, original in self._originals.items():
            parameter.data = original
        for hook in self._hooks:
            hook.remove()
        self._originals, self._wanted, self.applied, self._beside, self._hooks = {}, [], [], {}, []
        self.denoiser.forget()
        return left

    def clear(self) -> None:
        """Take all LoRAs out and keep none: the parameters hold the same tensors as before, to the bit."""
        self._take_out()
        self._kept.clear()


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
