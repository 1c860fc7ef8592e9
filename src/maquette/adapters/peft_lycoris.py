"""LoHa and LoKr as PEFT has them: the same factors, with the strength multiplied in, and a configuration from which
PEFT builds factors of the same shapes (its LoHaConfig and LoKrConfig).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..core.dtypes import alike, narrowed, scaled
from . import maths
from . import parts as adapter_parts

Modules = Mapping[str, Mapping[str, Tensor]]
_COMMON: dict[str, Any] = {
    "task_type": None, "base_model_name_or_path": None, "inference_mode": True, "rank_dropout": 0.0,
    "module_dropout": 0.0, "init_weights": True,
}  # fmt: skip


def loha(modules: Modules) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """PEFT's factors by layer, and the configuration. modules: path -> Kohya's parts. Raises ValueError for factors of
    two ranks in one layer, and for Tucker's form in some convolutions and not in others.
    """
    ranks, made = {}, {}
    with_kernel: set[bool] = set()
    for path, factors in modules.items():
        first, second = (factors[f"hada_w{i}_b"].shape[0] for i in (1, 2))
        if first != second:
            raise ValueError(f"PEFT has one rank for both products of a LoHa, {path} has {first} and {second}")
        ranks[path] = first
        tucker = "hada_t1" in factors
        if tucker or _is_kernel(path):
            with_kernel.add(tucker)
        made[path] = _strength_in(factors, "hada_w1_b")
    if len(with_kernel) > 1:
        raise ValueError("PEFT has Tucker's form in all convolutions of a LoHa or in none")
    config = _config("LOHA", ranks) | {"use_effective_conv2d": True in with_kernel}
    return made, config


def _is_kernel(path: str) -> bool:
    return path.rpartition(".")[2] in ("conv1", "conv2", "conv", "conv_in", "conv_out")


def lokr(modules: Modules) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The same for LoKr. The first factor and Tucker's form are multiplied out. PEFT divides every layer's sides by one
    `decompose_factor`: ValueError where no number gives the sides of all layers.
    """
    ranks, made, sides = {}, {}, {}
    for path, factors in modules.items():
        left, right = maths.kronecker_factors(factors)
        dtype = next(tensor.dtype for part, tensor in factors.items() if part.startswith("lokr_"))
        parts = {"lokr_w1": narrowed(left.flatten(1) * adapter_parts.scale(factors), dtype)}
        largest, rank = max(right.shape[:2]), adapter_parts.rank(factors)
        low = "lokr_w2" not in factors and "lokr_t2" not in factors and rank is not None and rank < largest / 2
        if low and rank is not None:
            ranks[path] = rank
            parts |= {part: factors[part].flatten(1) for part in ("lokr_w2_a", "lokr_w2_b")}
        else:  # at this rank PEFT has the factor as one matrix
            ranks[path] = math.ceil(largest / 2)
            parts["lokr_w2"] = narrowed(right, dtype)
        made[path] = dict(zip(parts, alike(*parts.values()), strict=True))
        sides[path] = [(left.shape[i], right.shape[i]) for i in (0, 1)]
    config = _config("LOKR", ranks) | {
        "decompose_both": False,
        "use_effective_conv2d": False,
        "decompose_factor": _factor(sides),
    }
    return made, config


def _strength_in(factors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    scale = adapter_parts.scale(factors)
    kept = {name: tensor for name, tensor in factors.items() if name.startswith("hada_")}
    kept[part] = scaled(kept[part], scale)
    return dict(zip(kept, alike(*kept.values()), strict=True))


def _factor(sides: Mapping[str, list[tuple[int, int]]]) -> int:
    wanted = [pair for pairs in sides.values() for pair in pairs]
    for factor in [-1, *sorted({pair[0] for pair in wanted}, reverse=True)]:
        if all(_split(m * n, factor) == (m, n) for m, n in wanted):
            return factor
    raise ValueError("PEFT has one decompose_factor for all layers of a LoKr, and none gives the sides that these have")


def _split(size: int, factor: int) -> tuple[int, int]:
    """PEFT's division of a side: (factor, the rest) where it divides, else the most even one with at most it."""
    if factor > 0 and size % factor == 0:
        return factor, size // factor
    most = min(size if factor < 0 else factor, math.isqrt(size))
    m = max(d for d in range(1, most + 1) if size % d == 0)
    return m, size // m


def _config(kind: str, ranks: Mapping[str, int]) -> dict[str, Any]:
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {path: rank for path, rank in ranks.items() if rank != usual}
    return _COMMON | {
        "peft_type": kind, "r": usual, "alpha": usual, "rank_pattern": others, "alpha_pattern": others,
        "target_modules": sorted(ranks),
    }  # fmt: skip
