"""LoRAs put into a checkpoint for good: W' = W + Σ mᵢ ΔWᵢ, tensor by tensor.

The sum is formed in order, in float32 or float64, and rounded once; a DoRA sees the weight with the LoRAs before it, as
programs that apply them one after the other do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapters.block_weights import BlockWeights
from ..adapters.file import Adapter
from ..adapters.fitting import fitted_change
from ..adapters.module_names import of_text_encoder
from ..errors import MaquetteError
from ..families.checkpoint import Checkpoint
from ..families.detect import FAMILY_NAMES
from ..formats.streaming import tiles
from .stream import Name, exact, layers, require_finite, require_storable


@dataclass(frozen=True)
class Lora:
    """An adapter, its multipliers for the text encoders and for the UNet, and its strength in each block."""

    adapter: Adapter
    te: float = 1.0
    unet: float = 1.0
    blocks: BlockWeights | None = None

    def multiplier(self, module: str) -> float:
        """What a module's change is multiplied by."""
        part = self.te if of_text_encoder(module) else self.unet
        return part * (self.blocks.of_module(module) if self.blocks else 1.0)


@dataclass(frozen=True)
class Change:
    """One term of a tensor's sum."""

    lora: Lora
    module: str
    is_bias: bool = False


@dataclass
class Plan:
    """Which changes each tensor of a model gets, in order, and what of each LoRA was matched."""

    changes: dict[Name, list[Change]] = field(default_factory=dict)
    matched: list[int] = field(default_factory=list)
    unmatched: list[list[str]] = field(default_factory=list)


def plan(model: Checkpoint, loras: Sequence[Lora], lossy: bool = False) -> Plan:
    """Find the layer of every module. Raises MaquetteError for a LoRA of another family, for a module that is no layer
    of this model (unless `lossy`) and for changes of a bias that the layer has not. Nothing is multiplied yet.
    """
    found, made = layers(model, foreign=True), Plan()
    for lora in loras:
        adapter = lora.adapter
        _require_family(model, adapter)
        unmatched = [name for name in adapter.modules if name not in found]
        if len(unmatched) == len(adapter.modules):
            raise MaquetteError(f"{adapter.source}: none of its {len(unmatched)} modules exists in {_called(model)}.")
        if unmatched and not lossy:
            raise MaquetteError(
                f"{adapter.source}: {len(unmatched)} of its {len(adapter.modules)} modules do not exist in "
                f"{_called(model)}, for example {unmatched[0]}; --lossy merges the others alone."
            )
        for module in adapter.modules:
            if module in found and lora.multiplier(module) != 0:
                _add(made, model, found[module], lora, module)
        made.matched.append(len(adapter.modules) - len(unmatched))
        made.unmatched.append(unmatched)
    return made


def _add(made: Plan, model: Checkpoint, layer: tuple[str, str], lora: Lora, module: str) -> None:
    part, path = layer
    factors = lora.adapter.modules[module].factors
    if not factors.keys() <= {"diff_b", "b_norm", "alpha"}:
        made.changes.setdefault((part, f"{path}.weight"), []).append(Change(lora, module))
    if "diff_b" in factors or "b_norm" in factors:
        bias = (part, f"{path}.bias")
        if bias[1] not in model.parts[part]:
            raise MaquetteError(
                f"{lora.adapter.source}: module {module} changes a bias, but the layer of {model.source} has none."
            )
        made.changes.setdefault(bias, []).append(Change(lora, module, is_bias=True))


def _called(model: Checkpoint) -> str:
    return f"{model.source} ({FAMILY_NAMES[model.spec.name]})"


def _require_family(model: Checkpoint, adapter: Adapter) -> None:
    untold = {adapter.family, model.spec.name} == {"sd1", "sd2"} and "ss_base_model_version" not in adapter.metadata
    if adapter.family in FAMILY_NAMES and adapter.family != model.spec.name and not untold:  # whose layers are alike
        raise MaquetteError(
            f"{adapter.source} is a LoRA for {FAMILY_NAMES[adapter.family]}, {model.source} is "
            f"{FAMILY_NAMES[model.spec.name]}: they do not belong together."
        )


def merged(model: Checkpoint, made: Plan, name: Name, precision: torch.dtype = torch.float32) -> Tensor:
    """One tensor of the result, in the precision of the arithmetic."""
    own = model.parts[name[0]][name[1]]
    numbers = exact(model, name, precision)
    return with_changes(numbers, made, name, numbers.data_ptr() != own.data_ptr())


def with_changes(weight: Tensor, made: Plan, name: Name, ours: bool = False) -> Tensor:
    """A tensor with the changes that are planned for it, in the tensor's precision. ours: it may be written into."""
    for change in made.changes.get(name, ()):
        adapter, multiplier = change.lora.adapter, change.lora.multiplier(change.module)
        if change.is_bias:
            delta = adapter.bias_delta(change.module)
            assert delta is not None
            if delta.numel() != weight.numel():
                raise MaquetteError(
                    f"{adapter.source}: module {change.module} changes a bias of {delta.numel()} numbers, here it has "
                    f"{weight.numel()}."
                )
            delta = delta.reshape(weight.shape)
        else:
            delta = fitted_change(adapter, change.module, weight)
        weight = torch.add(weight, delta, alpha=multiplier, out=weight if ours else None)
        ours = True
    return weight


def pieces(
    model: Checkpoint, made: Plan, part: str, name: str, dtype: torch.dtype, precision: torch.dtype = torch.float32
) -> Iterable[Tensor]:
    """What stands in the new file in one tensor's place; untouched tensors as they are, but looked through."""
    tensor = model.parts[part][name]
    if (part, name) not in made.changes:
        yield from checked(tensor, model.source, (part, name), dtype)
        return
    total = merged(model, made, (part, name), precision)
    require_finite(total, model.source, (part, name))
    require_storable(total, model.source, (part, name), dtype)
    yield total


def checked(tensor: Tensor, source: str, name: Name, dtype: torch.dtype) -> Iterable[Tensor]:
    """A tensor in tiles of its own type, each looked through for numbers that are none or that `dtype` cannot hold."""
    if not tensor.is_floating_point():
        yield tensor
        return
    for tile in tiles(tensor):
        numbers = tile.float()
        require_finite(numbers, source, name)
        if dtype != tensor.dtype:
            require_storable(numbers, source, name, dtype)
        yield tile


def memory(model: Checkpoint, made: Plan, precision: torch.dtype, part: str, name: str) -> int:
    """Bytes that computing one tensor takes: weight and change, and the sum where the weight is the file's own."""
    tensor = model.parts[part][name]
    if (part, name) not in made.changes:
        return 0
    return (3 if tensor.dtype == precision else 2) * precision.itemsize * tensor.numel()
