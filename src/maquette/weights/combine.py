"""Several LoRAs as one: exactly, by placing their matrices side by side, or at a rank, by QR and a small SVD."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..adapters import maths as adapter_maths
from ..adapters import parts as adapter_parts
from ..adapters.embeddings import Embedding
from ..adapters.file import Adapter, AdapterModule, method_of
from ..adapters.module_names import unflattened
from ..core import lowrank
from ..core.lowrank import RankRule
from ..errors import MaquetteError
from ..families.detect import FAMILY_NAMES
from .products import Product, needs_weight, product_from, product_of, set_rank_metadata


@dataclass(frozen=True)
class Weighted:
    """An adapter and what each of its modules' changes is multiplied by, by the module's name."""

    adapter: Adapter
    multiplier: Callable[[str], float] = lambda name: 1.0


@dataclass(frozen=True)
class Combined:
    """One module of the result: its rank (None: kept whole) and the relative error ||ΔW − ΔW'||_F / ||ΔW||_F."""

    name: str
    rank: int | None
    error: float
    energy: float


@dataclass
class CombinedAdapter:
    adapter: Adapter
    modules: list[Combined] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Relative error over all modules together."""
        whole = sum(module.energy for module in self.modules)
        return math.sqrt(sum(module.energy * module.error**2 for module in self.modules) / whole) if whole else 0.0


def combine(
    loras: Sequence[Weighted],
    rule: RankRule | None = None,
    weight_of: Callable[[str], Tensor | None] = lambda name: None,
    dtype: torch.dtype = torch.float32,
) -> CombinedAdapter:
    """One adapter whose change of every layer is Σ mᵢ ΔWᵢ, of LoRAs of one family.

    rule: None for exactly that, as LoRA modules of rank Σ rᵢ; changes that are no smaller product (LoKr, DoRA, full
    differences) are kept whole as `diff`. With a rule every module with a matrix gets a rank. weight_of: the base's
    weight of a layer, which DoRA, GLoRA, IA3 and OFT need. Norms and biases are added up; words come along. Arithmetic
    is float32, factors are stored in `dtype`. Raises MaquetteError for different families and layers that do not fit.
    """
    if not loras:
        raise MaquetteError("there is no LoRA to combine.")
    family = _family(loras)
    made: dict[str, AdapterModule] = {}
    result = CombinedAdapter(Adapter(family, "lora", made, {}, "the combined LoRA"))
    for name in dict.fromkeys(name for one in loras for name in one.adapter.modules):
        terms = [(one.adapter, m) for one in loras if name in one.adapter.modules and (m := one.multiplier(name)) != 0]
        if not terms:
            continue
        factors, report = _combined(name, terms, rule, weight_of(name), dtype)
        made[name] = AdapterModule(factors)
        result.modules += [report] if report else []
    if not made:
        raise MaquetteError(f"{loras[0].adapter.source}: every multiplier is 0, so nothing is left to combine.")
    result.adapter.method = method_of(made)
    result.adapter.embeddings = _words(loras)
    ranks = {module.rank for module in result.modules if module.rank is not None}
    result.adapter.metadata = set_rank_metadata(_common_metadata(loras), set(ranks or {0}), "maquette merge --to lora")
    return result


def _family(loras: Sequence[Weighted]) -> str:
    known: dict[str, Adapter] = {}
    for one in loras:
        known.setdefault(one.adapter.family, one.adapter)
    known.pop("unknown", None)
    if len(known) > 1:
        (a, first), (b, second) = list(known.items())[:2]
        raise MaquetteError(
            f"{first.source} is a LoRA for {FAMILY_NAMES[a]}, {second.source} for {FAMILY_NAMES[b]}: they change "
            "different models and cannot be combined."
        )
    return next(iter(known), "unknown")


def _combined(
    name: str, terms: Sequence[tuple[Adapter, float]], rule: RankRule | None, weight: Tensor | None, dtype: torch.dtype
) -> tuple[dict[str, Tensor], Combined | None]:
    if any(adapter.modules[name].kind == "norm" for adapter, _ in terms):
        return _added(name, terms, {"w_norm": ("w_norm",), "b_norm": ("b_norm", "diff_b")}, dtype), None
    factors = _added(name, terms, {"diff_b": ("diff_b",)}, dtype)
    terms = [term for term in terms if not _has_no_matrix(term[0].modules[name].factors)]
    if not terms:
        return factors, None
    products = [product_of(adapter.modules[name].factors) for adapter, _ in terms]
    shape = _shape(name, terms, weight)
    thin = all(product is not None for product in products)
    side = min(shape[0], math.prod(shape[1:]))
    if thin and sum(product.rank for product in products if product) <= side:
        up = torch.cat([m * p.up for (_, m), p in zip(terms, products, strict=True) if p], 1)
        down = torch.cat([p.down for p in products if p])
        exact = Product(up, down, shape)
        if rule is None:
            energy = lowrank.product_energy(up, down)
            return factors | exact.factors(dtype), Combined(name, exact.rank, 0.0, energy)
        svd = lowrank.product_svd(up, down)
    else:
        change = _dense(name, terms, weight, shape)
        if rule is None:
            return factors | {"diff": change.to(dtype)}, Combined(name, None, 0.0, lowrank.squares(change))
        svd = _svd(change.flatten(1), rule)
    rank = rule.choose(svd.s, svd.energy)
    error = svd.error(rank) / math.sqrt(svd.energy) if svd.energy else 0.0
    return factors | product_from(svd.first(rank), shape).factors(dtype), Combined(name, rank, error, svd.energy)


def _svd(change: Tensor, rule: RankRule) -> lowrank.SVD:
    if rule.dynamic or rule.rank is None:
        return lowrank.exact_svd(change)
    return lowrank.randomised_svd(change, rule.rank, torch.Generator().manual_seed(0))


def _has_no_matrix(factors: dict[str, Tensor]) -> bool:
    return adapter_parts.kind(factors) == "full" and "diff" not in factors


def _shape(name: str, terms: Sequence[tuple[Adapter, float]], weight: Tensor | None) -> tuple[int, ...]:
    """The layer's shape: of its weight where that is known, else as the modules say, with the kernel if one has it."""
    told = [(adapter, adapter_parts.change_shape(adapter.modules[name].factors)) for adapter, _ in terms]
    of = [(adapter, shape) for adapter, shape in told if shape is not None]
    shapes = [shape for _, shape in of]
    if weight is not None:
        shapes.insert(0, tuple(weight.shape))
    if not shapes:
        adapter = terms[0][0]
        kind = adapter_parts.DISPLAY.get(adapter.modules[name].kind, adapter.modules[name].kind)
        raise MaquetteError(f"{adapter.source}: module {name} is {kind}, which needs the base model's weight.")
    for adapter, shape in of:
        if shape[0] != shapes[0][0] or math.prod(shape) != math.prod(shapes[0]):
            raise MaquetteError(
                f"{adapter.source}: module {name} changes a weight of {shape}, elsewhere it is {shapes[0]}; these "
                "LoRAs were trained on different models."
            )
    if weight is not None:
        return shapes[0]
    family = next((adapter.family for adapter, _ in terms if adapter.family != "unknown"), "unknown")
    return unflattened(max(shapes, key=len), name, family)


def _dense(name: str, terms: Sequence[tuple[Adapter, float]], weight: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    total = torch.zeros(shape)
    for adapter, multiplier in terms:
        factors = adapter.modules[name].factors
        if needs_weight(factors) and weight is None:
            kind = "DoRA" if "dora_scale" in factors else adapter_parts.DISPLAY[adapter.modules[name].kind]
            raise MaquetteError(
                f"{adapter.source}: module {name} is {kind}, whose change follows from the base model's weight, and "
                "the base has no such layer."
            )
        try:
            change = adapter_maths.delta(factors, weight if needs_weight(factors) else None)
        except ValueError as error:
            raise MaquetteError(f"{adapter.source}: module {name} cannot be applied: {error}.") from error
        total += multiplier * change.reshape(shape)
    return total


def _added(
    name: str, terms: Sequence[tuple[Adapter, float]], parts: dict[str, tuple[str, ...]], dtype: torch.dtype
) -> dict[str, Tensor]:
    """Sums of changes by the part's name in the result. parts: under which names it stands in the terms."""
    found: dict[str, Tensor] = {}
    for adapter, multiplier in terms:
        own = adapter.modules[name].factors
        for part, names in parts.items():
            for other in names:
                if other in own:
                    term = multiplier * own[other].float()
                    found[part] = found[part] + term if part in found else term
    return {part: tensor.to(dtype) for part, tensor in found.items()}


def _words(loras: Sequence[Weighted]) -> list[Embedding]:
    words = [word for one in loras for word in one.adapter.embeddings]
    twice = [name for name, count in Counter(word.name for word in words).items() if count > 1]
    if twice:
        raise MaquetteError(f"two of these LoRAs bring the word {twice[0]!r}; one file cannot hold both.")
    return words


def _common_metadata(loras: Sequence[Weighted]) -> dict[str, str]:
    """What all of them say alike, above all the base's version; hashes and training facts of one are not of all."""
    first, *others = [one.adapter.metadata for one in loras]
    alike = {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
    kept = {key: value for key, value in alike.items() if key == "ss_base_model_version" or "architecture" in key}
    return kept | {"modelspec.merged_from": ", ".join(one.adapter.source for one in loras)}
