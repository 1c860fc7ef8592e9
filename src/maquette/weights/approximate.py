"""What a program cannot carry as it is, as the nearest that it can: any adapter's module as a LoRA of a rank."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..adapters import maths, writing
from ..adapters import parts as adapter_parts
from ..adapters.file import Adapter, AdapterModule, method_of
from ..core.dtypes import computed
from ..core.lowrank import RankRule, squares
from ..errors import MaquetteError
from .extract import Plan, as_dora
from .products import needs_weight, product_from, relative_error, set_rank_metadata, svd_of

_ANY_LORA = {"lora_down.weight": torch.ones(1, 1), "lora_up.weight": torch.ones(1, 1)}
WeightOf = Callable[[str], Tensor | None]


@dataclass(frozen=True)
class Approximated:
    """A module that became a LoRA. error: ||ΔW − ΔW'||_F / ||ΔW||_F."""

    name: str
    kind: str
    rank: int
    error: float
    energy: float


@dataclass
class Carried:
    """The adapter as the target can carry it. dropped: modules, or `module.part`, that are left out."""

    adapter: Adapter
    approximated: list[Approximated] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    @property
    def error(self) -> float:
        """Relative error over all approximated modules together."""
        whole = sum(one.energy for one in self.approximated)
        return math.sqrt(sum(one.energy * one.error**2 for one in self.approximated) / whole) if whole else 0.0


def carried(adapter: Adapter, target: str, rank: int | None, weight_of: WeightOf = lambda name: None) -> Carried:
    """Every module that the target (`writing.TARGETS`) refuses, as a LoRA of the rank; norms, biases and layers that it
    does not know are left out. A DoRA per input becomes one per output.

    weight_of: the base's weight by Kohya's name, which DoRA, GLoRA, IA3 and OFT need. Raises MaquetteError without it,
    and without a rank where one is needed.
    """
    result = Carried(replace(adapter, modules={}))
    common = _one_kind(adapter) if target == "peft" else None
    for name, module in adapter.modules.items():
        kind = adapter_parts.kind(module.factors)
        fits = common is None or kind.replace("locon", "lora") == common
        if fits and writing.refusal(target, name, module.factors) is None:
            result.adapter.modules[name] = module
            continue
        made = None
        if writing.refusal(target, name, _ANY_LORA) is None:  # the layer has a place there
            made = _nearest(adapter, target, name, rank, weight_of, result)
        if made is None:
            result.dropped.append(name)
        else:
            result.adapter.modules[name] = AdapterModule(made)
    if not result.adapter.modules:
        raise MaquetteError(f"{adapter.source} holds nothing that {writing.PROGRAMS[target]} could carry.")
    result.adapter.method = method_of(result.adapter.modules)
    if result.approximated:
        result.adapter.metadata = _metadata(result.adapter)
    return result


def _metadata(made: Adapter) -> dict[str, str]:
    """What Kohya's tools read of ranks, and of the kind where none of the one before is left, made true."""
    ranks = {module.rank for module in made.modules.values() if module.rank is not None}
    metadata = set_rank_metadata(made.metadata, ranks, "maquette convert --lossy")
    if made.method in ("lora", "locon") and "ss_network_module" in metadata:
        metadata |= {"ss_network_module": "networks.lora"}
        metadata.pop("ss_network_args", None)
    return metadata


def _one_kind(adapter: Adapter) -> str:
    """The kind that a PEFT folder can have alone: LoHa or LoKr where there is nothing else, otherwise LoRA."""
    kinds = Counter(adapter_parts.kind(module.factors) for module in adapter.modules.values())
    only = next(iter(kinds)) if len(kinds) == 1 else ""
    return only if only in ("loha", "lokr") else "lora"


def _nearest(
    adapter: Adapter, target: str, name: str, rank: int | None, weight_of: WeightOf, result: Carried
) -> dict[str, Tensor] | None:
    """A LoRA near to the module's change of the weight, or None where it changes no matrix."""
    factors = adapter.modules[name].factors
    kind = "dora" if "dora_scale" in factors else adapter_parts.kind(factors)
    if kind == "norm" or "_embeddings_" in name or (kind == "full" and "diff" not in factors):
        return None
    weight = weight_of(name)
    if needs_weight(factors) and weight is None:
        called = adapter_parts.DISPLAY.get(kind, "DoRA")
        raise MaquetteError(
            f"{adapter.source}: module {name} is {called}, whose change follows from the model's weights; name the "
            "model with --base."
        )
    if rank is None:
        raise MaquetteError(
            f"{adapter.source}: say at which rank {name} ({kind}) becomes a LoRA, for example --rank 16."
        )
    try:
        made, change = _lora(adapter, name, rank, weight, target)
    except ValueError as fault:
        raise MaquetteError(f"{adapter.source}: module {name} cannot be applied: {fault}.") from fault
    result.dropped += [f"{name}.{part}" for part in ("diff_b",) if part in factors]
    error = relative_error(change, maths.delta(made, weight if "dora_scale" in made else None))
    result.approximated.append(Approximated(name, kind, made["lora_down.weight"].shape[0], error, squares(change)))
    return made


def _lora(
    adapter: Adapter, name: str, rank: int, weight: Tensor | None, target: str
) -> tuple[dict[str, Tensor], Tensor]:
    factors = adapter.modules[name].factors
    dtype = computed(next((t.dtype for t in factors.values() if t.is_floating_point() and t.ndim), torch.float32))
    change = adapter.delta(name, weight)
    if "dora_scale" in factors and weight is not None and target in ("diffusers", "peft"):
        before, rule = weight.float(), RankRule(rank=rank)
        plan = Plan(rule, dora_axis=0, dtype=dtype)
        made = as_dora(before + change, before, rule, plan, torch.Generator().manual_seed(0))
        return made, change
    svd = svd_of(factors, rank, weight)
    return product_from(svd, tuple(change.shape)).factors(dtype), change
