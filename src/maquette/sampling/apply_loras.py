"""Puts LoRAs into a base model's weights for a while, and takes them out again without a trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self, cast

import torch
from torch import Tensor, nn

from ..adapters import maths
from ..adapters.file import Adapter
from ..adapters.fitting import explained
from ..adapters.module_names import network_and_path
from ..errors import MaquetteError
from ..families.base import BaseModel
from ..families.detect import FAMILY_NAMES
from ..families.layers import named_layers
from .apply_embeddings import apply_embeddings
from .lora_tags import Wish
from .low_rank_fold import LowRank, add_all
from .thin_products import Thin

Weights = dict[nn.Parameter, Tensor]


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


@dataclass(eq=False)
class Folded:
    """Weights with LoRAs in them: what was asked for, what became of it, the parameters that differ and their tensors,
    and what is computed beside layers.
    """

    wanted: list[Wish] = field(default_factory=list)
    applied: list[Applied] = field(default_factory=list)
    weights: Weights = field(default_factory=dict)
    beside: dict[nn.Module, Thin] = field(default_factory=dict)
    sums: Weights = field(default_factory=dict)  # of changes, in float32, while LoRAs are added

    @classmethod
    @torch.no_grad()
    def of(cls, base: BaseModel, wanted: Sequence[Wish], spare: Weights | None = None, beside: bool = False) -> Self:
        """The weights W + Σ mᵢ ΔWᵢ of a base whose own stay as they are.

        spare: tensors of the parameters' shapes that nobody needs any more, to be overwritten. beside: what is better
        computed beside a layer is left out of its weight. Raises MaquetteError for an adapter of which no module, or
        one of another shape, belongs to this base.
        """
        made, products = cls(list(wanted)), dict[nn.Parameter, LowRank]()
        layers = layers_of(base, {name for wish in wanted for name in wish.adapter.modules})
        once = _changed_once(layers, wanted)
        for wish in wanted:
            adapter = wish.adapter
            unmatched = [name for name in adapter.modules if name not in layers]
            matched = len(adapter.modules) - len(unmatched)
            if not matched:
                raise _no_match(base, adapter)
            made.applied.append(Applied(adapter.source, matched, unmatched, adapter.notes))
            for name, one in adapter.modules.items():
                layer, multiplier = layers.get(name), wish.multiplier(name)
                if layer is None or multiplier == 0:
                    continue
                weight = cast(nn.Parameter, layer.weight)
                alone = weight in once
                product = LowRank.of(adapter, name, weight, multiplier) if alone else None
                thin = Thin.of(name, layer, product) if beside and product is not None else None
                if thin is not None:
                    made.beside[layer] = thin
                elif product is not None:
                    products[weight] = product
                else:
                    seen = made.weights.get(weight, weight.data)  # a DoRA sees the weight with the LoRAs before it
                    try:
                        change = maths.delta(one.factors, seen, other_inputs=True)
                    except ValueError as error:
                        raise _explained(error, base, adapter, name, weight) from error
                    made.add(weight, change, multiplier, alone)
                    shift = maths.bias_delta(one.factors)
                    if shift is not None:
                        made.add(_bias(layer, adapter, name), shift, multiplier, alone)
        made.weights |= add_all(products, spare or {})
        made.sums.clear()
        return made

    def add(self, parameter: nn.Parameter, change: Tensor, multiplier: float, alone: bool) -> None:
        """A change of the parameter's shape. alone: there is no other.

        Several are added up in float32 first, so that they are rounded once and their order has no influence.
        """
        original = parameter.data
        more = multiplier * change.to(parameter.device)  # new, so that sums may go into it: every copy costs as much
        if alone:
            total = more.add_(original) if more.stride() == original.stride() else original.float() + more
        else:
            self.sums[parameter] = self.sums[parameter].add_(more) if parameter in self.sums else more
            total = original + self.sums[parameter]  # in float32, as the change is
        self.weights[parameter] = total.to(original.dtype, memory_format=torch.preserve_format)

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


@contextmanager
def apply_loras(base: BaseModel, loras: Sequence[tuple[Adapter, float, float]]) -> Iterator[list[Applied]]:
    """Within the block the weights are W + Σ mᵢ ΔWᵢ; afterwards the tensors from before are back. Words that came
    with an adapter (`bundle_emb`) are known within the block.

    loras: (adapter, multiplier for the text encoders, multiplier for the UNet), applied in order; the sum is formed in
    float32 and rounded once. Multiplier 0 leaves the weights untouched. Raises MaquetteError as `Folded.of`.
    """
    folded = Folded.of(base, [Wish(*each) for each in loras])
    originals = put_in(folded.weights)
    try:
        with apply_embeddings(base, [word for adapter, *_ in loras for word in adapter.embeddings]):
            yield folded.applied
    finally:
        put_in(originals)


def put_in(weights: Weights) -> Weights:
    """Give parameters these tensors. Returns those that they had."""
    before = {parameter: parameter.data for parameter in weights}
    for parameter, tensor in weights.items():
        parameter.data = tensor
    return before


def layers_of(base: BaseModel, names: Collection[str]) -> dict[str, nn.Module]:
    """Name -> layer with a weight, for those of the names (`adapters.module_names`) that the base has."""
    networks = {"unet": base.network}
    networks |= {f"text_encoder{'_2' * i}": encoder for i, encoder in enumerate(base.text_encoders)}
    paths = {
        part: {
            path: layer for path, layer in network.named_modules() if isinstance(getattr(layer, "weight", None), Tensor)
        }
        for part, network in networks.items()
    }
    places = {name: place for name in names if (place := network_and_path(name)) is not None}
    if len(places) < len(names):  # names that stayed as the file has them: of layers that no Stable Diffusion has
        weights = {part: [f"{path}.weight" for path in modules] for part, modules in paths.items()}
        places = named_layers(base.spec.name, weights, foreign=True) | places
    found = {}
    for name in names:
        part, path = places.get(name, ("", ""))
        layers = paths.get(part, {})
        layer = layers.get(path, layers.get(path.removeprefix("text_model.")))  # some encoders have no such level
        if layer is not None:
            found[name] = layer
    return found


def _changed_once(layers: Mapping[str, nn.Module], wanted: Sequence[Wish]) -> set[Tensor]:
    """Weights that one module of all these LoRAs changes, and no other."""
    found: Counter[Tensor] = Counter()
    for wish in wanted:
        names = [name for name in wish.adapter.modules if name in layers and wish.multiplier(name)]
        found.update(cast(Tensor, layers[name].weight) for name in names)
    return {weight for weight, times in found.items() if times == 1}


def _no_match(base: BaseModel, adapter: Adapter) -> MaquetteError:
    return MaquetteError(
        f"{adapter.source} is a LoRA for {FAMILY_NAMES.get(adapter.family, 'another model')}: none of its "
        f"{len(adapter.modules)} modules exists in {base.source} ({FAMILY_NAMES[base.spec.name]}). Use a LoRA that "
        "was trained on this kind of base."
    )


def _explained(error: ValueError, base: BaseModel, adapter: Adapter, name: str, weight: Tensor) -> MaquetteError:
    """As `explained`, put otherwise for a LoRA of another family."""
    if adapter.family in FAMILY_NAMES and adapter.family != base.spec.name:
        return MaquetteError(
            f"{adapter.source} is a LoRA for {FAMILY_NAMES[adapter.family]} and does not fit {base.source} "
            f"({FAMILY_NAMES[base.spec.name]}). Use a LoRA that was trained on this kind of base."
        )
    return explained(error, adapter, name, weight)


def _bias(module: nn.Module, adapter: Adapter, name: str) -> nn.Parameter:
    bias = getattr(module, "bias", None)
    if not isinstance(bias, nn.Parameter):
        raise MaquetteError(f"{adapter.source}: module {name} changes a bias, but the base's layer has none.")
    return bias


def _same(a: Wish, b: Wish) -> bool:
    return a.adapter is b.adapter and (a.te, a.unet, a.blocks) == (b.te, b.unet, b.blocks)
