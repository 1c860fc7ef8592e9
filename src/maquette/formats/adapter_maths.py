"""The weight change that an adapter's factors stand for, for every kind of adapter that is applied.

Factors carry the names of Kohya and LyCORIS files. Shapes: out and in are the layer's sizes, r the rank, (h, w) the
kernel of a convolution. All arithmetic is float32. Papers: LoRA arXiv:2106.09685, LoHa (FedPara)
arXiv:2108.06098, LoKr (LyCORIS) arXiv:2309.14859, DoRA arXiv:2402.09353.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

Factors = Mapping[str, Tensor]

# Parts that name a kind, most telling first. Kinds without a rule in `delta` are recognised, named and refused.
_KIND_PARTS = {
    "lora": {"lora_down.weight", "lora_up.weight"},
    "loha": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "lokr": {"lokr_w1", "lokr_w1_a", "lokr_w2", "lokr_w2_a"},
    "full": {"diff", "diff_b"},
    "norm": {"w_norm", "b_norm"},
    "glora": {"a1.weight", "a2.weight", "b1.weight", "b2.weight"},
    "oft": {"oft_blocks", "oft_diag"},
    "ia3": {"weight", "on_input"},
}
_DISPLAY = {"glora": "GLoRA", "oft": "OFT", "ia3": "IA3"}
KNOWN_PARTS = frozenset().union(*_KIND_PARTS.values()) | {
    "alpha", "scale", "dora_scale", "lora_mid.weight", "hada_t1", "hada_t2",
    "lokr_w1_b", "lokr_w2_b", "lokr_t1", "lokr_t2", "bm.weight", "rescale",
}  # fmt: skip


def kind(factors: Factors) -> str:
    """ "lora", "locon" (a LoRA with a kernel), "loha", "lokr", "full", "norm", "glora", "oft", "ia3" or "unknown"."""
    for name, parts in _KIND_PARTS.items():
        if parts & factors.keys():
            has_kernel = name == "lora" and (
                "lora_mid.weight" in factors or _has_kernel(factors.get("lora_down.weight"))
            )
            return "locon" if has_kernel else name
    return "unknown"


def _has_kernel(weight: Tensor | None) -> bool:
    return weight is not None and weight.ndim == 4 and weight.shape[2:] != (1, 1)


def rank(factors: Factors) -> int | None:
    """Inner size of the factors; None for kinds that have none (full differences, LoKr of two full matrices)."""
    for part in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in factors:
            return (
                factors[part].shape[0]
                if "lokr_t2" not in factors or part != "lokr_w2_b"
                else factors["lokr_t2"].shape[0]
            )
    return None


def alpha(factors: Factors) -> float | None:
    """The alpha in the file; None when absent, which means alpha = rank."""
    return float(factors["alpha"]) if "alpha" in factors else None


def scale(factors: Factors) -> float:
    """alpha / rank, or 1 where either is absent."""
    r, a = rank(factors), alpha(factors)
    return 1.0 if r is None or a is None or r == 0 else a / r


def delta(factors: Factors, base_weight: Tensor | None = None) -> Tensor:
    """Weight change at multiplier 1, float32, in the layer's own shape: (out, in) or (out, in, h, w).

    base_weight: the layer's weight. DoRA needs it; LoHa and LoKr of a kernel come flat, (out, in·h·w), without it.
    Raises ValueError where it is missing, for kinds without a rule, and for factors that do not fit each other.
    """
    name = kind(factors)
    rules = {"lora": _lora, "locon": _lora, "loha": _loha, "lokr": _lokr, "full": _full, "norm": _norm}
    if name not in rules:
        known = "LoRA, LoCon, DoRA, LoHa, LoKr and full differences"
        raise ValueError(f"it is of the kind {_DISPLAY.get(name, name)}, which maquette does not apply, only {known}")
    if "dora_scale" in factors and base_weight is None:
        raise ValueError("DoRA needs the base model's weight")
    try:
        change = rules[name]({part: tensor.to(torch.float32) for part, tensor in factors.items()})
        if base_weight is not None:
            change = change.reshape(base_weight.shape)
        if base_weight is not None and "dora_scale" in factors:
            change = _dora(change, factors["dora_scale"].to(torch.float32), base_weight.to(torch.float32))
    except (RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"its factors do not fit each other or the layer ({str(error).splitlines()[0]})") from error
    return change


def bias_delta(factors: Factors) -> Tensor | None:
    """Change of the layer's bias (`diff_b`, `b_norm`), float32, or None."""
    for part in ("diff_b", "b_norm"):
        if part in factors:
            return factors[part].to(torch.float32)
    return None


def _lora(f: Factors) -> Tensor:
    """Delta W = alpha/r up @ down; with lora_mid (Tucker) the kernel stands in the middle. Linear or convolution."""
    down, up = f["lora_down.weight"], f["lora_up.weight"]
    if "lora_mid.weight" in f:
        change = torch.einsum("or,rshw,si->oihw", up.flatten(1), f["lora_mid.weight"], down.flatten(1))
    else:
        change = (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])
    return change * scale(f)


def _hadamard_factor(f: Factors, index: int) -> Tensor:
    a, b = f[f"hada_w{index}_a"], f[f"hada_w{index}_b"]
    if f"hada_t{index}" in f:  # a: (r, out), b: (r, in), t: (r, r, h, w)
        return torch.einsum("rshw,ro,si->oihw", f[f"hada_t{index}"], a, b)
    return a @ b  # (out, in·h·w)


def _loha(f: Factors) -> Tensor:
    """Delta W = alpha/r (w1_a @ w1_b) * (w2_a @ w2_b), elementwise product. A kernel is flat unless Tucker."""
    return _hadamard_factor(f, 1) * _hadamard_factor(f, 2) * scale(f)


def _kronecker_factor(f: Factors, index: int) -> Tensor:
    whole = f.get(f"lokr_w{index}")
    if whole is not None:
        return whole
    a, b = f[f"lokr_w{index}_a"], f[f"lokr_w{index}_b"]
    if f"lokr_t{index}" in f:
        return torch.einsum("rshw,ro,si->oihw", f[f"lokr_t{index}"], a, b)
    return (a @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])


def _lokr(f: Factors) -> Tensor:
    """Delta W = alpha/r kron(w1, w2); alpha counts only where a factor is itself a product."""
    w1, w2 = _kronecker_factor(f, 1), _kronecker_factor(f, 2)
    if w2.ndim == 4:
        w1 = w1[:, :, None, None]
    return torch.kron(w1.contiguous(), w2.contiguous()) * scale(f)


def _full(f: Factors) -> Tensor:
    return f["diff"]


def _norm(f: Factors) -> Tensor:
    return f["w_norm"]


def _dora(change: Tensor, magnitude: Tensor, base: Tensor) -> Tensor:
    """DoRA: W' - W, W' = m (W + Delta) / ||W + Delta||; the norm is per output or input, as the shape of m says."""
    direction = base + change
    axis = 0 if magnitude.ndim == 1 or magnitude.shape[0] == magnitude.numel() else 1
    shape = [1] * base.ndim
    shape[axis] = base.shape[axis]
    others = [i for i in range(base.ndim) if i != axis]
    norm = torch.linalg.vector_norm(direction, dim=others, keepdim=True)
    return direction * (magnitude.reshape(shape) / norm) - base
