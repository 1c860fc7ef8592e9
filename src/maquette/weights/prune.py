"""Leave out the blocks of a LoRA that do not matter, by what they change of the base's predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..adapters.block_weights import block_of, blocks
from ..adapters.file import Adapter, method_of
from ..core.noise import NoiseSchedule
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..sampling.apply_loras import apply_loras

OTHER = "other"
_TIMES = (0.95, 0.7, 0.45, 0.2)  # of the schedule, from noise on: a picture's outline, parts and details
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Effect:
    """A block of a LoRA. effect: ||p − p'|| / ||p − p₀||, of the predictions with the whole LoRA p, without the block
    p' and without the LoRA p₀: 0 where it changes nothing, 1 where it is all that the LoRA does.
    """

    block: str
    modules: int
    bytes: int
    effect: float


@dataclass
class Pruned:
    """effects: every block alone, strongest first. dropped: blocks left out; effect: of all of them together."""

    adapter: Adapter
    effects: list[Effect] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    effect: float = 0.0


class Probe:
    """The base's predictions on a road from noise to a picture, the same for every LoRA that is asked about.

    The road is walked once with the whole LoRA, by DDIM (arXiv:2010.02502, eta = 0), so that the noisy latents are such
    as drawing with it meets.
    """

    def __init__(self, base: BaseModel, adapter: Adapter, prompt: str, seed: int) -> None:
        if base.unet.get_submodule("conv_in").get_parameter("weight").shape[1] != 4:
            raise MaquetteError(f"{base.source} has further inputs (inpainting); measure with the plain base.")
        self._base, self._prompt = base, prompt
        self._schedule = NoiseSchedule.from_config(base.scheduler_config)
        self._times = [int(share * (len(self._schedule) - 1)) for share in _TIMES]
        side = base.spec.native_size // base.spec.latent_factor
        self._road = [torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(seed))]
        self.with_lora = self._walk(adapter)
        self.without = self.predictions(replace(adapter, modules={}))
        self.size = _norm(self.with_lora, self.without)
        if self.size == 0:
            raise MaquetteError(f"{adapter.source} changes nothing of what {base.source} predicts.")

    def _walk(self, adapter: Adapter) -> list[Tensor]:
        """Predictions with the adapter; the next place on the road follows from each."""
        found = []
        with torch.no_grad(), apply_loras(self._base, [(adapter, 1.0, 1.0)]):
            words = self._base.encode_text([self._prompt])
            for time, following in zip(self._times, [*self._times[1:], None], strict=True):
                x, t = self._road[-1], torch.tensor([time])
                output = self._base.predict(x, t, words).float()
                found.append(output)
                if following is not None:
                    x0, noise = self._schedule.x0(output, x, t), self._schedule.eps(output, x, t)
                    self._road.append(self._schedule.add_noise(x0, noise, torch.tensor([following])))
        return found

    def predictions(self, adapter: Adapter) -> list[Tensor]:
        """With an adapter, which may have no modules, at every place of the road."""
        loras = [(adapter, 1.0, 1.0)] if adapter.modules else []
        with torch.no_grad(), apply_loras(self._base, loras):
            words = self._base.encode_text([self._prompt])
            return [
                self._base.predict(x, torch.tensor([time]), words).float()
                for x, time in zip(self._road, self._times, strict=True)
            ]

    def effect(self, adapter: Adapter) -> float:
        """How far the predictions with this adapter are from those with the whole one, against what that one does."""
        return _norm(self.predictions(adapter), self.with_lora) / self.size


def prune(
    adapter: Adapter,
    base: BaseModel,
    chosen: Sequence[str] = (),
    limit: float = 0.05,
    prompt: str = "",
    seed: int = 0,
    on_step: OnStep = lambda done, of: None,
) -> Pruned:
    """The adapter without some blocks: those that are chosen, otherwise the weakest ones, as many as change its effect
    on the predictions by at most `limit` together.

    Raises MaquetteError for blocks that it has not, and where nothing would be left.
    """
    groups = group(adapter)
    unknown = [name for name in chosen if name not in groups]
    if unknown:
        raise MaquetteError(f"{adapter.source} has no block {unknown[0]}; its blocks are {', '.join(groups)}.")
    if len(set(chosen)) == len(groups):
        raise MaquetteError(f"{adapter.source} has no other blocks than {', '.join(groups)}; nothing would be left.")
    probe = Probe(base, adapter, prompt, seed)
    effects = []
    for index, (name, modules) in enumerate(groups.items()):
        size = sum(t.nbytes for module in modules for t in adapter.modules[module].factors.values())
        effects.append(Effect(name, len(modules), size, probe.effect(_without(adapter, modules))))
        on_step(index + 1, len(groups))
    effects.sort(key=lambda one: -one.effect)
    dropped = list(chosen) or _weakest(adapter, probe, groups, effects, limit)
    kept = _without(adapter, [module for name in dropped for module in groups[name]])
    kept.metadata = adapter.metadata | ({"maquette.pruned": ", ".join(dropped)} if dropped else {})
    kept.method = method_of(kept.modules)
    return Pruned(kept, effects, dropped, probe.effect(kept) if dropped else 0.0)


def group(adapter: Adapter) -> dict[str, list[str]]:
    """Block -> its modules, in the order of the network. The text encoders are the block BASE."""
    found: dict[str, list[str]] = {}
    for name in adapter.modules:
        try:
            block = block_of(name, adapter.family)
        except ValueError:
            block = OTHER
        found.setdefault(block, []).append(name)
    order = [*blocks(adapter.family), OTHER]
    return {block: found[block] for block in order if block in found}


def _weakest(
    adapter: Adapter, probe: Probe, groups: dict[str, list[str]], effects: Sequence[Effect], limit: float
) -> list[str]:
    """The longest list of the weakest blocks whose joint effect is within the limit, by halving the interval; a longer
    list is taken to change no less.
    """
    order = [one.block for one in reversed(effects)]
    low, high = 0, len(order) - 1  # at least one block stays
    while low < high:
        count = (low + high + 1) // 2
        names = [module for block in order[:count] for module in groups[block]]
        low, high = (count, high) if probe.effect(_without(adapter, names)) <= limit else (low, count - 1)
    return order[:low]


def _without(adapter: Adapter, names: Iterable[str]) -> Adapter:
    left_out = set(names)
    return replace(adapter, modules={name: m for name, m in adapter.modules.items() if name not in left_out})


def _norm(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float((a - b).double().square().sum()) for a, b in zip(x, y, strict=True)))
