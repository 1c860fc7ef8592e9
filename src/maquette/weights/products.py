"""An adapter's change of one layer as a product of two thin matrices or as singular triples, without the whole matrix
where the kind of adapter allows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..adapters import maths as adapter_maths
from ..adapters import parts as adapter_parts
from ..adapters.parts import Factors
from ..core import lowrank

_ROWS = 1 << 18  # numbers of a difference that are formed at a time
OF_WEIGHT = ("glora", "oft", "boft", "ia3")  # kinds whose change follows from the layer's weight


@dataclass(frozen=True)
class Product:
    """A change up @ down: up (out, r), down (r, in·h·w), float32. shape: the change's, (out, in[, h, w])."""

    up: Tensor
    down: Tensor
    shape: tuple[int, ...]

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    def factors(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Kohya's parts of a LoRA with alpha = rank."""
        kernel = self.shape[2:]
        return {
            "lora_down.weight": self.down.reshape(self.rank, *self.shape[1:]).to(dtype).contiguous(),
            "lora_up.weight": self.up.reshape(*self.up.shape, *[1] * len(kernel)).to(dtype).contiguous(),
            "alpha": torch.tensor(float(self.rank), dtype=dtype),
        }

    def clamped(self, quantile: float, s: Tensor) -> Product:
        """Numbers limited to a quantile of them, in the factors u diag(s) and vh as in kohya's extraction
        (--clamp_quantile). s: the singular values that were split evenly between the two.
        """
        root = s.clamp(min=1e-30).sqrt()
        up, down = self.up * root, self.down / root[:, None]
        most = float(torch.quantile(torch.cat([up.flatten(), down.flatten()]), quantile))
        return Product(up.clamp(-most, most) / root, down.clamp(-most, most) * root[:, None], self.shape)


def needs_weight(factors: Factors) -> bool:
    """Whether the change follows only from the layer's own weight (DoRA, GLoRA, IA3, OFT, BOFT)."""
    return adapter_parts.kind(factors) in OF_WEIGHT or "dora_scale" in factors


def has_additions(factors: Factors) -> bool:
    """Whether numbers are added to the product (`bias`, `bias_values` of LyCORIS' extraction)."""
    return "bias" in factors or "bias_values" in factors


def product_of(factors: Factors) -> Product | None:
    """The change as a product, exactly: LoRA, LoCon, Tucker's form of it, and LoHa by the product of its rows and
    columns. None where there is none that is smaller than the matrix, or where the layer's weight is needed.

    (a b) ∘ (c d) has the rows' Kronecker products of a and c, and the columns' of b and d, as factors.
    """
    kind = adapter_parts.kind(factors)
    if needs_weight(factors) or has_additions(factors) or kind not in ("lora", "locon", "loha"):
        return None
    shape = adapter_parts.change_shape(factors)
    assert shape is not None
    f = {part: tensor.float() for part, tensor in factors.items()}
    scale = adapter_parts.scale(factors)
    most = min(shape[0], math.prod(shape[1:]))
    if kind == "loha":
        if "hada_t1" in f or f["hada_w1_b"].shape[0] * f["hada_w2_b"].shape[0] > most:
            return None
        a, b, c, d = (f[f"hada_w{i}_{side}"].flatten(1) for i in (1, 2) for side in "ab")
        up = torch.einsum("or,os->ors", a, c).flatten(1)
        return Product(up * scale, torch.einsum("ri,si->rsi", b, d).flatten(0, 1), shape)
    up, down = f["lora_up.weight"].flatten(1), f["lora_down.weight"]
    if "lora_mid.weight" in f:
        down = torch.einsum("rshw,si->rihw", f["lora_mid.weight"], down.flatten(1))
    return Product(up * scale, down.flatten(1), shape)


def svd_of(factors: Factors, rank: int | None = None, weight: Tensor | None = None) -> lowrank.SVD:
    """The singular triples of the change, the `rank` largest of them where that is told: by QR of the factors, from
    the factors of a Kronecker product, else of the whole matrix (out, in·h·w).

    weight: the layer's, for kinds that need it; ValueError without.
    """
    product = product_of(factors)
    if product is not None:
        found = lowrank.product_svd(product.up, product.down)
        return found if rank is None else found.first(rank)
    if adapter_parts.kind(factors) == "lokr" and not needs_weight(factors) and not has_additions(factors):
        left, right = adapter_maths.kronecker_factors(factors)
        whole = adapter_parts.scale(factors)
        svds = (lowrank.exact_svd(left.flatten(1) * whole), lowrank.exact_svd(right.flatten(1)))
        return lowrank.kronecker_svd(*svds, rank or svds[0].rank * svds[1].rank)
    change = adapter_maths.delta(factors, weight).flatten(1)
    if rank is None:
        return lowrank.exact_svd(change)
    return lowrank.randomised_svd(change, rank, torch.Generator().manual_seed(0))


def product_from(svd: lowrank.SVD, shape: tuple[int, ...]) -> Product:
    """A decomposition as a LoRA's two matrices."""
    up, down = svd.factors()
    return Product(up, down, shape)


def relative_error(change: Tensor, written: Product | Tensor) -> float:
    """||ΔW − ΔW'||_F / ||ΔW||_F, in float32, a few rows at a time; 0 for a change of nothing."""
    flat = change.flatten(1)
    size, left = lowrank.squares(flat), []
    step = max(1, _ROWS // flat.shape[1])
    for start in range(0, len(flat), step):
        rows = slice(start, start + step)
        if isinstance(written, Product):
            rest = torch.addmm(flat[rows], written.up[rows], written.down, alpha=-1)
        else:
            rest = flat[rows] - written.flatten(1)[rows]
        left.append(lowrank.squares(rest))
    return math.sqrt(math.fsum(left) / size) if size else 0.0


def kept_energy(modules: Iterable[tuple[float, float]]) -> float:
    """Share of the whole energy that is kept, of pairs (energy, share kept)."""
    pairs = list(modules)
    whole = sum(energy for energy, _ in pairs)
    return sum(energy * kept for energy, kept in pairs) / whole if whole else 1.0


def set_rank_metadata(metadata: dict[str, str], ranks: set[int], how: str) -> dict[str, str]:
    """The metadata with what Kohya's tools and UIs read about ranks, made true: `Dynamic` where they differ."""
    rank_text = str(next(iter(ranks))) if len(ranks) == 1 else "Dynamic"
    return metadata | {"ss_network_dim": rank_text, "ss_network_alpha": rank_text, "maquette.made_by": how}
