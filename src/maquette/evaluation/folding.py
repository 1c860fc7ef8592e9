"""A LoRA whose weight is folded in: what drew best at 0.85 does so at 1."""

from __future__ import annotations

import torch
from torch import Tensor

from ..adapters.file import Adapter, AdapterModule
from ..errors import MaquetteError

_LINEAR = (
    "lora_up.weight",
    "hada_w1_a",
    "lokr_w1",
    "lokr_w1_a",
    "diff",
    "diff_b",
    "bias",
    "bias_values",
    "w_norm",
    "b_norm",
)


def folded(adapter: Adapter, weight: float) -> Adapter:
    """The same adapter, its change at multiplier 1 being `weight` times what it was.

    One factor of each product is scaled, which every program reads alike. Raises MaquetteError for kinds whose change
    is no product: DoRA, OFT, GLoRA, (IA)³.
    """
    if weight == 1.0:
        return adapter
    modules = {name: AdapterModule(_scaled(module.factors, weight)) for name, module in adapter.modules.items()}
    made = Adapter(adapter.family, adapter.method, modules, dict(adapter.metadata), adapter.source, adapter.embeddings)
    for name in modules:
        _require_scaled(adapter, made, name, weight)
    return made


def _scaled(factors: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
    """A LoKr has lokr_w1 or lokr_w1_a, not both; additions beside a product are scaled too."""
    return {part: x * weight if part in _LINEAR and x.is_floating_point() else x for part, x in factors.items()}


def _require_scaled(adapter: Adapter, made: Adapter, name: str, weight: float) -> None:
    try:
        before, after = adapter.delta(name).float(), made.delta(name).float()
    except MaquetteError:
        before = after = torch.zeros(0)
    close = before.numel() and torch.allclose(after, before * weight, rtol=1e-2, atol=1e-3 * float(before.abs().max()))
    if not close:
        raise MaquetteError(
            f"The weight of {adapter.source} cannot be folded in: module {name} is no plain product (DoRA, OFT, GLoRA "
            f"and (IA)³ are not). Use the file as it is, at weight {weight:g}."
        )
