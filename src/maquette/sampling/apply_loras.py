"""Puts LoRAs into a base model's weights for a while, and takes them out again without a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
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
from .thin_products import Thin


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


@dataclass
class Changes:
    """What becomes of a base's weights while LoRAs are added to them, one after the other.

    alone: of `changed_once`. originals: the tensors that parameters had before. sums: changes so far of parameters that
    several LoRAs change, in float32, so that they are rounded once and their order has no influence. spare: tensors of
    the parameters' shapes that nobody needs any more, to be overwritten. beside: where it is a dictionary, it gets what
    is better computed beside a layer, whose weight then stays.
    """

    alone: Collection[Tensor]
    originals: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    sums: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    spare: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    beside: dict[nn.Module, Thin] | None = None
    folds: Folds = field(default_factory=Folds)

    def add_product(self, name: str, module: nn.Module, weight: nn.Parameter, product: LowRank) -> None:
        """Of the only module that changes a weight."""
        thin = None if self.beside is None else Thin.of(name, module, product)
        if self.beside is not None and thin is not None:
            self.beside[module] = thin
            return
        self.originals.setdefault(weight, weight.data)
        self.folds[weight] = product, self.spare.pop(weight, None)

    def add(self, parameter: nn.Parameter, change: Tensor, multiplier: float, alone: bool) -> None:
        """Any other change, of the parameter's shape."""
        original = self.originals.setdefault(parameter, parameter.data)
        more = multiplier * change.to(parameter.device)  # new, so that sums may go into it: every copy costs as much
        if alone:
            same = more.stride() == parameter.stride()
            total = more.add_(parameter.data) if same else parameter.data.float() + more
        else:
            self.sums[parameter] = self.sums[parameter].add_(more) if parameter in self.sums else more
            total = original + self.sums[parameter]  # in float32, as the change is
        parameter.data = total.to(original.dtype, memory_format=torch.preserve_format)


@contextmanager
def apply_loras(base: BaseModel, loras: Sequence[tuple[Adapter, float, float]]) -> Iterator[list[Applied]]:
    """Within the block the weights are W + Σ mᵢ ΔWᵢ; afterwards the tensors from before are back. Words that came
    with an adapter (`bundle_emb`) are known within the block.

    loras: (adapter, multiplier for the text encoders, multiplier for the UNet), applied in order; the sum is formed in
    float32 and rounded once. Multiplier 0 leaves the weights untouched. Raises MaquetteError for an adapter of which
    no module, or one of another shape, belongs to this base.
    """
    layers = layers_of(base)
    changes = Changes(changed_once(layers, [(*each, _whole) for each in loras]))
    try:
        with ExitStack() as stack:
            applied = [add_lora(base, layers, *each, changes) for each in loras]
            changes.sums.clear()
            stack.enter_context(apply_embeddings(base, [e for adapter, *_ in loras for e in adapter.embeddings]))
            yield applied
    finally:
        for parameter, original in changes.originals.items():
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


def _whole(module: str) -> float:
    """Every block counts fully."""
    return 1.0


def changed_once(
    layers: dict[str, nn.Module], loras: Sequence[tuple[Adapter, float, float, Callable[[str], float]]]
) -> set[Tensor]:
    """Weights that one module of all these LoRAs changes, and no other. loras: as `add_lora` takes them."""
    found: Counter[Tensor] = Counter()
    for adapter, te, unet, share in loras:
        names = [name for name in adapter.modules if name in layers and _multiplier(name, te, unet, share)]
        found.update(cast(Tensor, layers[name].weight) for name in names)
    return {weight for weight, times in found.items() if times == 1}


def _multiplier(name: str, te: float, unet: float, share: Callable[[str], float]) -> float:
    return (te if of_text_encoder(name) else unet) * share(name)


@torch.no_grad()
def add_lora(
    base: BaseModel,
    layers: dict[str, nn.Module],
    adapter: Adapter,
    te: float,
    unet: float,
    changes: Changes,
    share: Callable[[str], float] = _whole,
) -> Applied:
    """Add one adapter to the weights.

    layers: of `layers_of`. te, unet: multipliers for the text encoders and the UNet. share: of a module's block.
    Raises as `apply_loras`.
    """
    report = Applied(adapter.source, notes=adapter.notes)
    for name in adapter.modules:
        module = layers.get(name)
        if module is None:
            report.unmatched.append(name)
            continue
        report.matched += 1
        multiplier = _multiplier(name, te, unet, share)
        if multiplier == 0:
            continue
        weight = cast(nn.Parameter, module.weight)
        alone = weight in changes.alone
        product = LowRank.of(adapter, name, weight, multiplier) if alone else None
        if product is not None:
            changes.add_product(name, module, weight, product)
            continue
        changes.add(weight, _change(base, adapter, name, weight), multiplier, alone)
        shift = adapter.bias_delta(name)
        if shift is not None:
            changes.add(_bias(module, adapter, name), shift, multiplier, alone)
    add_all(changes.folds)
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


def _bias(module: nn.Module, adapter: Adapter, name: str) -> nn.Parameter:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise MaquetteError(f"{adapter.source}: module {name} changes a bias, but the base's layer has none.")
    return bias
