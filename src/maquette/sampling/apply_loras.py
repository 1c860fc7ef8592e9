"""Puts LoRAs into a base model's weights for a while, and takes them out again without a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from ..adapters.file import Adapter
from ..adapters.fitting import fitted_change
from ..adapters.module_names import of_text_encoder
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..families.detect import FAMILY_NAMES
from ..families.layers import named_layers
from .apply_embeddings import apply_embeddings
from .low_rank_fold import Folds, LowRank, add_all


@dataclass
class Applied:
    """What became of one LoRA: how many of its modules exist in the base, and the names of those that do not."""

    source: str
    matched: int = 0
    unmatched: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def warning(self) -> str | None:
        if not self.unmatched:
            return " ".join(self.notes) or None
        return " ".join(self.notes) + (
            f"{self.source}: {len(self.unmatched)} of its {self.matched + len(self.unmatched)} modules do not exist "
            f"in this base and are not applied, for example {self.unmatched[0]}."
        )


@contextmanager
def apply_loras(base: BaseModel, loras: Sequence[tuple[Adapter, float, float]]) -> Iterator[list[Applied]]:
    """Within the block the weights are W + Σ mᵢ ΔWᵢ; afterwards the tensors from before are back. Words that came
    with an adapter (`bundle_emb`) are known within the block.

    loras: (adapter, multiplier for the text encoders, multiplier for the UNet), applied in order; the sum is formed in
    float32 and rounded once. Multiplier 0 leaves the weights untouched. Raises MaquetteError for an adapter of which
    no module, or one of another shape, belongs to this base.
    """
    layers = layers_of(base)
    originals: dict[nn.Parameter, Tensor] = {}
    try:
        with ExitStack() as stack:
            changes: dict[nn.Parameter, Tensor] | None = {} if len(loras) > 1 else None
            applied = [add_lora(base, layers, *each, originals, changes=changes) for each in loras]
            del changes
            stack.enter_context(apply_embeddings(base, [e for adapter, *_ in loras for e in adapter.embeddings]))
            yield applied
    finally:
        for parameter, original in originals.items():
            parameter.data = original


def layers_of(base: BaseModel) -> dict[str, nn.Module]:
    """Name -> module, for everything that has a weight, under every name that an adapter may give it."""
    networks = {"unet": base.network}
    networks |= {f"text_encoder{'_2' * i}": encoder for i, encoder in enumerate(base.text_encoders)}
    names = {
        part: [f"{path}.weight" for path, module in network.named_modules() if _has_weight(module)]
        for part, network in networks.items()
    }
    layers = named_layers(base.spec.name, names, foreign=True)
    return {name: networks[part].get_submodule(path) for name, (part, path) in layers.items()}


def _has_weight(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor)


@torch.no_grad()
def add_lora(
    base: BaseModel,
    layers: dict[str, nn.Module],
    adapter: Adapter,
    te: float,
    unet: float,
    originals: dict[nn.Parameter, Tensor],
    share: Callable[[str], float] = lambda module: 1.0,
    changes: dict[nn.Parameter, Tensor] | None = None,
    spare: dict[nn.Parameter, Tensor] | None = None,
) -> Applied:
    """Add one adapter to the weights; parameters that change for the first time leave their tensor in `originals`.

    layers: of `layers_of`. te, unet: multipliers for the text encoders and the UNet. share: of a
    module's block. changes: sums of the changes so far, in float32, so that several LoRAs are rounded once and their
    order has no influence; None where there is one LoRA. spare: tensors of the parameters' shapes that nobody needs any
    more, to be overwritten. Raises as `apply_loras`.
    """
    report, folds = Applied(adapter.source, notes=adapter.notes), Folds()
    for name in adapter.modules:
        module = layers.get(name)
        if module is None:
            report.unmatched.append(name)
            continue
        report.matched += 1
        multiplier = (te if of_text_encoder(name) else unet) * share(name)
        if multiplier == 0:
            continue
        weight = cast(nn.Parameter, module.weight)
        plain = LowRank.of(adapter, name, weight, multiplier) if changes is None else None
        if weight in folds:  # another name of the same layer
            add_all(folds)
        if plain is not None:
            originals.setdefault(weight, weight.data)
            folds[weight] = plain, (spare or {}).pop(weight, None)
            continue
        change = _change(base, adapter, name, weight)
        _add(weight, change, multiplier, originals, changes)
        shift = adapter.bias_delta(name)
        if shift is not None:
            _add(_bias(module, adapter, name), shift, multiplier, originals, changes)
    add_all(folds)
    if not report.matched:
        raise _no_match(base, adapter)
    return report


def _no_match(base: BaseModel, adapter: Adapter) -> MaquetteError:
    return MaquetteError(
        f"{adapter.source} is a LoRA for {FAMILY_NAMES.get(adapter.family, 'another model')}: none of its "
        f"{len(adapter.modules)} modules exists in {base.source} ({FAMILY_NAMES[base.spec.name]}). Use a LoRA that "
        "was trained on this kind of base."
    )


def _change(base: BaseModel, adapter: Adapter, name: str, weight: Tensor) -> Tensor:
    """As `fitted_change`, whose error is put otherwise for a LoRA of another family."""
    try:
        return fitted_change(adapter, name, weight)
    except MaquetteError as error:
        if adapter.family in FAMILY_NAMES and adapter.family != base.spec.name:
            raise MaquetteError(
                f"{adapter.source} is a LoRA for {FAMILY_NAMES[adapter.family]} and does not fit {base.source} "
                f"({FAMILY_NAMES[base.spec.name]}). Use a LoRA that was trained on this kind of base."
            ) from error
        raise


def _add(
    parameter: nn.Parameter,
    change: Tensor,
    multiplier: float,
    originals: dict[nn.Parameter, Tensor],
    changes: dict[nn.Parameter, Tensor] | None,
) -> None:
    original = originals.setdefault(parameter, parameter.data)
    more = multiplier * change.to(parameter.device)  # new, so that sums may go into it: every copy costs as much
    if changes is None:
        total = more.add_(parameter.data) if more.stride() == parameter.stride() else parameter.data.float() + more
    else:
        changes[parameter] = changes[parameter].add_(more) if parameter in changes else more
        total = original + changes[parameter]  # in float32, as the change is
    parameter.data = total.to(original.dtype, memory_format=torch.preserve_format)


def _bias(module: nn.Module, adapter: Adapter, name: str) -> nn.Parameter:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise MaquetteError(f"{adapter.source}: module {name} changes a bias, but the base's layer has none.")
    return bias
