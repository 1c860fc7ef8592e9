"""`<lora:NAME:TE:UNET:DYN:te=:unet=:dyn=:lbw=:start=:stop=:step=>`: A1111's tag, and its extension's block weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..adapters.block_weights import BlockWeights
from ..adapters.file import Adapter, AdapterModule
from ..adapters.module_names import of_text_encoder
from ..errors import MaquetteError
from ..prompts import Network, malformed_tag

MAX_MULTIPLIER = 100.0  # LoRAs are used between -2 and 2; beyond this a tag has a slip of the pen
_KINDS = ("lora", "lyco")
_NAMED = ("te", "unet", "dyn", "lbw", "start", "stop", "step")
_MOST_POSITIONAL = 4
_DYN_PLACE = 3


@dataclass(frozen=True)
class LoraTag:
    """One multiplier stands for both, none for 1. rank: only so many of the LoRA's ranks. blocks: weights of blocks,
    as written. start, stop: when it holds, as shares of the steps, or from 1 on as numbers of the first step and the
    last.
    """

    name: str
    te: float = 1.0
    unet: float = 1.0
    rank: int | None = None
    blocks: str | None = None
    start: float = 0.0
    stop: float = math.inf


@dataclass(frozen=True)
class Wish:
    """A LoRA as it shall be in the weights: multipliers for the text encoders and the UNet, and what narrows them."""

    adapter: Adapter
    te: float = 1.0
    unet: float = 1.0
    blocks: BlockWeights | None = None
    start: float = 0.0
    stop: float = math.inf

    @property
    def scheduled(self) -> bool:
        """Whether it does not hold at every step."""
        return self.start > 0 or self.stop < math.inf

    def at(self, step: int, steps: int) -> Wish:
        """The same at a step, counted from 0, of so many: without effect on the UNet outside of its time."""
        first = self.start * steps if self.start < 1 else self.start - 1
        end = self.stop * steps if self.stop <= 1 else self.stop
        return self if first <= step < end else replace(self, unet=0.0)

    def multiplier(self, module: str) -> float:
        """What a module's change is multiplied by: the network's multiplier times the block's weight."""
        part = self.te if of_text_encoder(module) else self.unet
        return part if self.blocks is None else part * self.blocks.of_module(module)


def tags_of(networks: Sequence[Network], rest: str = "") -> list[LoraTag]:
    """The LoRAs that a prompt asks for. rest: the prompt without its tags.

    Raises MaquetteError for what would otherwise be silently without effect, such as a tag that is not closed.
    """
    if tag := malformed_tag(rest):
        raise MaquetteError(f"The prompt's {tag} is no tag and would be read as words; write <lora:NAME:0.8>.")
    return [_tag(network) for network in networks]


def _tag(network: Network) -> LoraTag:
    written = str(network)[1:-1]
    _require_known(network, written)
    name, *numbers = network.positional
    number = _reader(written)
    values = [number(text) for text in numbers[: _DYN_PLACE - 1]]
    te = number(network.named["te"]) if "te" in network.named else (values[0] if values else 1.0)
    unet = number(network.named["unet"]) if "unet" in network.named else (values[1] if len(values) > 1 else te)
    if not max(abs(te), abs(unet)) <= MAX_MULTIPLIER or math.isnan(unet):
        raise MaquetteError(
            f"The prompt's <{written}> has a multiplier that is not between -{MAX_MULTIPLIER:g} and {MAX_MULTIPLIER:g}."
        )
    dyn = network.named.get("dyn", network.positional[_DYN_PLACE] if len(numbers) >= _DYN_PLACE else None)
    rank = None if dyn is None else number(dyn, "rank (dyn)")
    if rank is not None and not (rank >= 1 and rank == int(rank)):
        raise MaquetteError(f"The prompt's <{written}> has a rank (dyn) that is no whole number from 1 on.")
    start, stop = _times(network, number, written)
    return LoraTag(name, te, unet, None if rank is None else int(rank), network.named.get("lbw"), start, stop)


def _require_known(network: Network, written: str) -> None:
    if network.kind == "hypernet":
        raise MaquetteError(f"The prompt's <{written}> is a hypernetwork, which maquette cannot apply; leave it out.")
    if network.kind not in _KINDS:
        raise MaquetteError(f"The prompt's <{written}> is of the unknown kind {network.kind!r}; write <lora:NAME:0.8>.")
    unknown = [key for key in network.named if key not in _NAMED]
    if unknown or len(network.positional) > _MOST_POSITIONAL:
        what = f"argument {unknown[0]!r}" if unknown else "fourth number"
        raise MaquetteError(f"The prompt's <{written}> has the unknown {what}; write <lora:NAME:TE:UNET>.")
    if not network.positional or not network.positional[0]:
        raise MaquetteError(f"The prompt's <{written}> names no LoRA; write <lora:NAME:0.8>.")


def _reader(written: str) -> Callable[..., float]:
    def number(text: str, what: str = "multiplier") -> float:
        try:
            return float(text)
        except ValueError as error:
            raise MaquetteError(f"The prompt's <{written}> has a {what} that is no number.") from error

    return number


def _times(network: Network, number: Callable[..., float], written: str) -> tuple[float, float]:
    """(start, stop); `step=a-b` names both."""
    named = dict(network.named)
    if "step" in named:
        named["start"], _, named["stop"] = named["step"].partition("-")
        if not named["start"] or not named["stop"]:
            raise MaquetteError(
                f"The prompt's <{written}> has a step that is no range of steps; write step=5-10, or start=5 or stop=5."
            )
    start = number(named["start"], "start") if "start" in named else 0.0
    stop = number(named["stop"], "stop") if "stop" in named else math.inf
    if stop == 1:  # all of the steps
        stop = math.inf
    if not 0 <= start < math.inf or not stop >= 0:
        raise MaquetteError(f"The prompt's <{written}> has a start or stop below 0; write start=0.2:stop=0.8.")
    if (0 < start < 1 and start >= stop) or start > stop > 1:
        raise MaquetteError(f"The prompt's <{written}> stops before it starts; write start=0.2:stop=0.8.")
    return start, stop


def first_ranks(adapter: Adapter, rank: int) -> Adapter:
    """The adapter with only the first ranks of its LoRA modules, at the strength that each rank has; A1111's `dyn`."""
    return replace(
        adapter, modules={name: AdapterModule(_cut(module.factors, rank)) for name, module in adapter.modules.items()}
    )


def _cut(factors: dict[str, Any], rank: int) -> dict[str, Any]:
    import torch

    down, up = factors.get("lora_down.weight"), factors.get("lora_up.weight")
    if down is None or up is None or "lora_mid.weight" in factors or len(down) <= rank:
        return factors
    alpha = float(factors["alpha"]) if "alpha" in factors else float(len(down))
    extra = {"alpha": torch.tensor(alpha * rank / len(down))}
    return {**factors, "lora_down.weight": down[:rank], "lora_up.weight": up[:, :rank], **extra}
