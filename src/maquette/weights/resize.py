"""Another rank for a LoRA: exactly, from the small matrices of which it is made (never from the whole change)."""

from __future__ import annotations

import itertools
import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

from ..adapters import parts as adapter_parts
from ..adapters.file import Adapter, AdapterModule, method_of
from ..core import lowrank
from ..core.dtypes import computed, scaled
from ..core.lowrank import RankRule
from ..errors import MaquetteError
from ..formats import safetensors
from ..formats.streaming import run_all
from .products import kept_energy, product_from, set_rank_metadata

_SIZES = {"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
_KEPT = ("dora_scale", "diff_b", "bias", "bias_indices", "bias_values", "bias_size")


@dataclass(frozen=True)
class Resized:
    """One module: ranks before and after, and what share of its change's energy (squared Frobenius norm) is kept."""

    name: str
    before: int
    after: int
    kept: float
    energy: float


@dataclass
class ResizedAdapter:
    """The adapter, what became of each module, and the modules that have no rank to change."""

    adapter: Adapter
    modules: list[Resized] = field(default_factory=list)
    untouched: list[str] = field(default_factory=list)

    @property
    def kept(self) -> float:
        """Share of the energy of all resized modules that is kept."""
        return kept_energy((module.energy, module.kept) for module in self.modules)


def resize(
    adapter: Adapter,
    rule: RankRule,
    conv_rule: RankRule | None = None,
    target_bytes: int | None = None,
    dtype: torch.dtype | None = None,
    on_module: Callable[[int, int], None] = lambda done, of: None,
    threads: int = 1,
) -> ResizedAdapter:
    """LoRA and LoCon modules of an adapter (DoRA's too) at the rank that the rule gives each.

    conv_rule: for convolutions with a kernel, otherwise as the others. target_bytes: the ranks, within the rule, that
    keep most energy in a file of at most this size when it is written in `dtype`. alpha becomes the rank, so nothing
    else scales the change; where ranks differ it is left out, which means the same to every reader and is what
    diffusers does not misread. The number of threads changes nothing in the result; on_module is called by one at a
    time. Raises MaquetteError for an adapter without such modules.
    """
    svds, untouched = _decomposed(adapter, rule, conv_rule, on_module, threads)
    ranks = {name: svd.rank for name, svd in svds.items()}
    if target_bytes is not None:
        ranks = _fitting(adapter, svds, ranks, target_bytes, dtype)
    made = ResizedAdapter(replace(adapter, modules=dict(adapter.modules)), untouched=untouched)
    same = len(set(ranks.values())) == 1 and target_bytes is None  # a size has no room for alphas that say nothing
    for name, svd in svds.items():
        before, rank = adapter.modules[name], ranks[name]
        made.adapter.modules[name] = AdapterModule(_factors(before.factors, svd, rank, same, dtype))
        kept = 1.0 if svd.energy == 0 else float(svd.s[:rank].double().square().sum()) / svd.energy
        made.modules.append(Resized(name, before.rank or 0, rank, min(1.0, kept), svd.energy))
    made.adapter.metadata = set_rank_metadata(adapter.metadata, set(ranks.values()), "maquette resize")
    made.adapter.method = method_of(made.adapter.modules)
    return made


def _decomposed(
    adapter: Adapter,
    rule: RankRule,
    conv_rule: RankRule | None,
    on_module: Callable[[int, int], None],
    threads: int,
) -> tuple[dict[str, lowrank.SVD], list[str]]:
    """The decompositions of the modules that have a rank, by name in the file's order; and the names of the others."""
    found: dict[str, lowrank.SVD] = {}
    reporting, done = threading.Lock(), itertools.count(1)

    def one_module(name: str, module: AdapterModule) -> None:
        if module.kind in ("lora", "locon"):
            found[name] = _svd(module.factors, conv_rule if conv_rule and module.kind == "locon" else rule)
        with reporting:
            on_module(next(done), len(adapter.modules))

    run_all([partial(one_module, *each) for each in adapter.modules.items()], threads)
    if not found:
        kind = adapter_parts.DISPLAY.get(adapter.method, adapter.method)
        raise MaquetteError(
            f"{adapter.source} has no rank to change: its modules are of the kind {kind}. Make a LoRA of it first: "
            "maquette merge --to lora --lora FILE --rank 16 --out LORA."
        )
    return {name: found[name] for name in adapter.modules if name in found}, [
        n for n in adapter.modules if n not in found
    ]


def _svd(factors: Mapping[str, Tensor], rule: RankRule) -> lowrank.SVD:
    """Of the product alone; what stands beside it (a magnitude, additions) has no rank."""
    up, down = factors["lora_up.weight"].flatten(1), factors["lora_down.weight"]
    if "lora_mid.weight" in factors:
        down = torch.einsum("rshw,si->rihw", factors["lora_mid.weight"].double(), down.double().flatten(1))
    return lowrank.product_svd(up.double() * adapter_parts.scale(factors), down.flatten(1), rule.choose)


def _factors(
    before: Mapping[str, Tensor], svd: lowrank.SVD, rank: int, with_alpha: bool, dtype: torch.dtype | None
) -> dict[str, Tensor]:
    shape = adapter_parts.change_shape(before)
    assert shape is not None
    made = product_from(svd.first(rank), shape).factors(dtype or computed(before["lora_down.weight"].dtype))
    if not with_alpha:
        made.pop("alpha")
    scale = adapter_parts.scale(before)
    for part in _KEPT:
        if part in before:
            added = part in ("bias", "bias_values")  # readers scale these as the product
            made[part] = scaled(before[part], scale) if added else before[part]
    return made


def _fitting(
    adapter: Adapter, svds: Mapping[str, lowrank.SVD], most: Mapping[str, int], target: int, dtype: torch.dtype | None
) -> dict[str, int]:
    """Ranks of at most `most` in `target` bytes: by turns the singular value that adds most energy for its bytes, one
    of each module first. A module's values fall and cost the same, so no earlier one is skipped.
    """
    costs = {name: _bytes_per_rank(adapter.modules[name].factors, dtype) for name in svds}
    ranks = dict.fromkeys(svds, 1)
    least = _file_bytes(adapter, svds, ranks, dtype)
    if least > target:
        raise MaquetteError(
            f"{adapter.source}: the smallest file of its {len(adapter.modules)} modules, at rank 1, has "
            f"{least / 1e6:.2f} MB; the target is {target / 1e6:.2f} MB."
        )
    offers = sorted(
        (-(float(svd.s[j]) ** 2) / costs[name], j, name) for name, svd in svds.items() for j in range(1, most[name])
    )
    left = target - least
    for _, j, name in offers:
        if j == ranks[name] and costs[name] <= left:
            ranks[name] += 1
            left -= costs[name]
    while _file_bytes(adapter, svds, ranks, dtype) > target:  # the header's digits grew
        fattest = max(ranks, key=lambda name: ranks[name])
        ranks[fattest] -= 1
    return ranks


def _bytes_per_rank(factors: Mapping[str, Tensor], dtype: torch.dtype | None) -> int:
    shape = adapter_parts.change_shape(factors)
    assert shape is not None
    return (shape[0] + math.prod(shape[1:])) * (dtype or computed(factors["lora_down.weight"].dtype)).itemsize


def _file_bytes(
    adapter: Adapter, svds: Mapping[str, lowrank.SVD], ranks: Mapping[str, int], dtype: torch.dtype | None
) -> int:
    """Size of the file that these ranks give, with room for the metadata that is written about them."""
    modules = dict(adapter.modules)
    for name in svds:
        modules[name] = AdapterModule(_shapes_of(adapter.modules[name].factors, ranks[name]))
    tensors = replace(adapter, modules=modules).state_dict()
    metadata = set_rank_metadata(adapter.metadata, {0, 1}, "maquette resize") | {"sshs_model_hash": "0" * 64}
    return safetensors.file_size(tensors, metadata, dtype)


def _shapes_of(before: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
    shape = adapter_parts.change_shape(before)
    assert shape is not None
    dtype = computed(before["lora_down.weight"].dtype)
    ones = [1] * len(shape[2:])
    kept = {part: before[part] for part in _KEPT if part in before}
    return kept | {
        "lora_down.weight": torch.empty(rank, *shape[1:], dtype=dtype, device="meta"),
        "lora_up.weight": torch.empty(shape[0], rank, *ones, dtype=dtype, device="meta"),
    }


def parse_size(text: str) -> int:
    """ "20MB", "500 kB", "1.5GiB" -> bytes. Raises MaquetteError."""
    match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]{0,3})\s*", text)
    unit = _SIZES.get(match[2].upper()) if match else None
    if match is None or unit is None or float(match[1]) <= 0:
        raise MaquetteError(f"{text!r} is no size of a file; write it as 20MB or 500kB.")
    return int(float(match[1]) * unit)
