"""The weight change that an adapter's factors stand for, for every kind of adapter that is applied.

Factors carry the names of Kohya and LyCORIS files; `adapter_parts` says which belong together and checks them.
Shapes: out and in are the layer's sizes, r the rank, (h, w) the kernel of a convolution. Arithmetic is float32.
Papers: LoRA arXiv:2106.09685, LoHa (FedPara) arXiv:2108.06098, LoKr and GLoRA (LyCORIS) arXiv:2309.14859, DoRA
arXiv:2402.09353, (IA)³ arXiv:2205.05638, OFT arXiv:2306.07280, BOFT arXiv:2311.06243.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .. import limits
from ..core.channels import INPAINTING_CHANNELS, LATENT_CHANNELS
from .parts import DISPLAY, Factors, change_shape, is_old_glora, kind, oft_outputs, scale


class Misfit(ValueError):
    """Factors of another shape than the layer's. shape: of the weight that they change."""

    def __init__(self, shape: tuple[int, ...], layer: tuple[int, ...]) -> None:
        super().__init__(f"its factors do not fit the layer: they change a weight of {shape}, here it is {layer}")
        self.shape = shape


def delta(factors: Factors, base_weight: Tensor | None = None, other_inputs: bool = False) -> Tensor:
    """Weight change at multiplier 1, in the layer's own shape: (out, in) or (out, in, h, w); float32, and float64
    where the base's weight is.

    base_weight: the layer's weight. DoRA, GLoRA, IA3 and OFT need it; LoHa and LoKr of a kernel come flat,
    (out, in·h·w), without it. other_inputs: of a first convolution with other inputs than the base's, an inpainting
    model's or an ordinary one's, the latent's channels alone are changed. Shapes are compared before anything is
    multiplied. Raises ValueError where the weight is missing, for unknown kinds, and for factors that do not fit each
    other; Misfit for those that do not fit the layer.
    """
    try:
        if base_weight is None or not other_inputs:
            return _delta(factors, base_weight)
        shape = change_shape(factors)
        inputs = shape[1] if shape is not None and base_weight.ndim == 4 and len(shape) > 1 else None
        change = _delta(factors, base_weight if inputs is None else _with_inputs(base_weight, inputs))
        return change if change.shape == base_weight.shape else _with_inputs(change, base_weight.shape[1])
    except (RuntimeError, KeyError, IndexError) as error:
        raise ValueError(f"its factors do not fit each other or the layer ({str(error).splitlines()[0]})") from error


def _delta(factors: Factors, base_weight: Tensor | None) -> Tensor:
    name = kind(factors)
    if name == "unknown":
        raise ValueError("it is of an unknown kind")
    if base_weight is None and (name in ("glora", "oft", "boft", "ia3") or "dora_scale" in factors):
        raise ValueError(f"{DISPLAY.get(name, 'DoRA')} needs the base model's weight")
    shape = change_shape(factors)
    _compare(factors, shape, base_weight)
    dtype = base_weight.dtype if base_weight is not None and base_weight.dtype == torch.float64 else torch.float32
    f = {part: tensor if part in _WHOLE else tensor.to(dtype) for part, tensor in factors.items()}
    if name in ("glora", "oft", "boft", "ia3"):
        assert base_weight is not None
        change = _OF_WEIGHT[name](f, base_weight.to(dtype))
    elif shape is None:  # a change of the bias alone
        change = torch.zeros((), dtype=dtype) if base_weight is None else torch.zeros(base_weight.shape, dtype=dtype)
    else:
        change = _RULES[name](f)
        change = change.mul_(scale(f)) if name == "lora" else change * scale(f)  # the product of a LoRA is new
    change = _with_additions(f, change)
    if base_weight is None:
        return change
    change = change.reshape(base_weight.shape)
    return _dora(change, f["dora_scale"], base_weight.to(dtype)) if "dora_scale" in f else change


_WHOLE = ("bias_indices", "bias_size", "on_input")


def _compare(factors: Factors, shape: tuple[int, ...] | None, base: Tensor | None) -> None:
    if base is None:
        if shape is not None and math.prod(shape) > limits.CHANGE_NUMBERS:
            raise ValueError(f"it changes a weight of {shape}, which no layer has")
        return
    layer = tuple(base.shape)
    if shape is not None and (shape[0] != layer[0] or math.prod(shape) != math.prod(layer)):
        raise Misfit(tuple(shape), layer)
    if len(layer) < 2 and kind(factors) in _OF_WEIGHT:
        raise ValueError(f"its kind does not fit a weight of {layer}")
    if not {"oft_blocks", "oft_diag"}.isdisjoint(factors) and oft_outputs(factors) != layer[0]:
        raise ValueError(f"its blocks turn {oft_outputs(factors)} outputs, the layer has {layer[0]}")
    if "on_input" in factors and factors["weight"].numel() != layer[1 if float(factors["on_input"]) else 0]:
        raise ValueError(f"it scales {factors['weight'].numel()} features, the layer's weight is {layer}")
    if "dora_scale" in factors and factors["dora_scale"].numel() != layer[_dora_axis(factors["dora_scale"])]:
        raise ValueError(f"dora_scale is {tuple(factors['dora_scale'].shape)}, the layer's weight {layer}")


def _with_inputs(kernel: Tensor, inputs: int) -> Tensor:
    """(out, 4 or 9, kh, kw) with 4 or 9 inputs, where one is asked for and the other is there; new ones are 0."""
    there = kernel.shape[1] if kernel.ndim == 4 else inputs
    if {there, inputs} != {LATENT_CHANNELS, INPAINTING_CHANNELS}:
        return kernel
    if inputs < there:
        return kernel[:, :inputs]
    padded = kernel.new_zeros(kernel.shape[0], inputs, *kernel.shape[2:])
    padded[:, :there] = kernel
    return padded


def bias_delta(factors: Factors) -> Tensor | None:
    """Change of the layer's bias (`diff_b`, `b_norm`), float32, or None."""
    for part in ("diff_b", "b_norm"):
        if part in factors:
            return factors[part].to(torch.float32)
    return None


def _with_additions(f: Factors, change: Tensor) -> Tensor:
    """What LyCORIS' extraction keeps beside the product: `bias`, dense, or its largest numbers as a sparse matrix."""
    if "bias" in f:
        change = change + f["bias"].reshape(change.shape) * scale(f)
    if "bias_values" in f:
        rows, columns = change.shape[0], change[0].numel()
        size, indices, values = [int(n) for n in f["bias_size"].flatten()], f["bias_indices"].long(), f["bias_values"]
        if size != [rows, columns] or indices.shape != (2, len(values)):
            raise ValueError(f"bias_size is {size}, the change has {rows} rows of {columns}")
        if bool((indices < 0).any()) or bool((indices >= torch.tensor([[rows], [columns]])).any()):
            raise ValueError("bias_indices point outside the layer's weight")
        extra = values.new_zeros(rows, columns).index_put((indices[0], indices[1]), values, accumulate=True)
        change = change + extra.to(change.device).reshape(change.shape) * scale(f)
    return change


def _lora(f: Factors) -> Tensor:
    """Delta W = up @ down; with lora_mid (Tucker) the kernel stands in the middle. Linear or convolution."""
    down, up = f["lora_down.weight"], f["lora_up.weight"]
    if "lora_mid.weight" in f:
        return torch.einsum("or,rshw,si->oihw", up.flatten(1), f["lora_mid.weight"], down.flatten(1))
    return (up.flatten(1) @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def _hadamard_factor(f: Factors, index: int) -> Tensor:
    a, b = f[f"hada_w{index}_a"], f[f"hada_w{index}_b"]
    if f"hada_t{index}" in f:  # a: (r, out), b: (r, in), t: (r, r, h, w)
        return torch.einsum("rshw,ro,si->oihw", f[f"hada_t{index}"], a.flatten(1), b.flatten(1))
    return a.flatten(1) @ b.flatten(1)  # (out, in·h·w)


def _loha(f: Factors) -> Tensor:
    """Delta W = (w1_a @ w1_b) * (w2_a @ w2_b), elementwise product. A kernel is flat unless Tucker."""
    return _hadamard_factor(f, 1) * _hadamard_factor(f, 2)


def _kronecker_factor(f: Factors, index: int) -> Tensor:
    whole = f.get(f"lokr_w{index}")
    if whole is not None:
        return whole
    a, b = f[f"lokr_w{index}_a"], f[f"lokr_w{index}_b"]
    if f"lokr_t{index}" in f:
        return torch.einsum("rshw,ro,si->oihw", f[f"lokr_t{index}"], a.flatten(1), b.flatten(1))
    return (a.flatten(1) @ b.flatten(1)).reshape(a.shape[0], *b.shape[1:])


def _lokr(f: Factors) -> Tensor:
    """Delta W = kron(w1, w2); alpha counts only where a factor is itself a product."""
    w1, w2 = kronecker_factors(f)
    if w1.ndim != w2.ndim:
        w1 = w1.reshape(*w1.shape[:2], *[1] * (w2.ndim - 2))
    return torch.kron(w1.contiguous(), w2.contiguous())


def kronecker_factors(factors: Factors) -> tuple[Tensor, Tensor]:
    """LoKr's w1 (a, b) and w2 (c, d[, h, w]) as whole matrices, float32, without alpha."""
    f = {part: factors[part].to(torch.float32) for part in factors if part.startswith("lokr_")}
    return _kronecker_factor(f, 1), _kronecker_factor(f, 2)


def _glora(f: Factors, base: Tensor) -> Tensor:
    """Delta W = alpha/r (W a1 a2 + b1 b2), with the factors' places exchanged in files of LyCORIS before version 2."""
    a1, a2, b1, b2 = (f[part] for part in ("a1.weight", "a2.weight", "b1.weight", "b2.weight"))
    if is_old_glora(f):
        a1, a2, b1, b2 = a2, a1, b2, b1
    if "bm.weight" in f:
        added = torch.einsum("or,rshw,si->oihw", b1.flatten(1), f["bm.weight"], b2.flatten(1))
    else:
        added = b1.flatten(1) @ b2.flatten(1)
    turned = torch.einsum("oi...,ij->oj...", base, a1.flatten(1) @ a2.flatten(1))
    return (turned + added.reshape(base.shape)) * scale(f)


def _ia3(f: Factors, base: Tensor) -> Tensor:
    """Delta W = W w, with one number per output, or per input."""
    places = [1] * base.ndim
    places[1 if float(f["on_input"]) else 0] = -1
    return base * f["weight"].reshape(places) * scale(f)


def _rotations(f: Factors, outputs: int) -> Tensor:
    """Orthogonal blocks (…, n, n) by Cayley's transform of their skew part, whose norm alpha times `outputs` bounds
    unless alpha is 0; LyCORIS' old `oft_diag` holds the blocks themselves.
    """
    if "oft_blocks" not in f:
        return f["oft_diag"]
    blocks, bound = f["oft_blocks"], float(f.get("alpha", torch.zeros(()))) * outputs
    skew = blocks - blocks.mT
    if bound > 0:
        skew = skew * (bound / (torch.linalg.vector_norm(skew) + 1e-8)).clamp(max=1.0)
    one = torch.eye(blocks.shape[-1], device=blocks.device, dtype=blocks.dtype)
    rotation: Tensor = (one + skew) @ torch.linalg.inv(one - skew)
    return rotation


def _oft(f: Factors, base: Tensor) -> Tensor:
    """W' = R^T W in blocks of outputs, then each output times `rescale`; Delta W = W' - W."""
    rotations = _rotations(f, base.shape[0])
    blocks = base.reshape(*rotations.shape[:2], -1)
    return _rescaled(f, torch.einsum("knm,kni->kmi", rotations, blocks).reshape(base.shape)) - base


def _boft(f: Factors, base: Tensor) -> Tensor:
    """The same in stages: stage i turns blocks of outputs that lie 2^i half blocks apart, as in a butterfly."""
    rotations = _rotations(f, base.shape[0])
    half, turned = rotations.shape[-1] // 2, base.reshape(base.shape[0], -1)
    for stage, blocks in enumerate(rotations):
        apart = half * 2**stage
        if turned.shape[0] % (2 * apart):
            raise ValueError(f"its {len(rotations)} stages do not fit the layer's {turned.shape[0]} outputs")
        grouped = turned.reshape(-1, 2, apart, turned.shape[1]).transpose(1, 2).reshape(*blocks.shape[:2], -1)
        grouped = torch.einsum("bij,bjn->bin", blocks, grouped)
        turned = grouped.reshape(-1, apart, 2, turned.shape[1]).transpose(1, 2).reshape(turned.shape)
    return _rescaled(f, turned.reshape(base.shape)) - base


def _rescaled(f: Factors, weight: Tensor) -> Tensor:
    return weight * f["rescale"].reshape(-1, *[1] * (weight.ndim - 1)) if "rescale" in f else weight


def _dora_axis(magnitude: Tensor) -> int:
    """0 for a magnitude per output, (out,) or (out, 1[, 1, 1]); 1 for one per input, (1, in[, 1, 1])."""
    return 0 if magnitude.ndim == 1 or magnitude.shape[0] == magnitude.numel() else 1


def _dora(change: Tensor, magnitude: Tensor, base: Tensor) -> Tensor:
    """DoRA: W' - W, W' = m (W + Delta) / ||W + Delta||; the norm is per output or input, as the shape of m says."""
    direction = base + change
    axis = _dora_axis(magnitude)
    shape = [1] * base.ndim
    shape[axis] = base.shape[axis]
    others = [i for i in range(base.ndim) if i != axis]
    norm: Tensor = torch.linalg.vector_norm(direction, dim=others, keepdim=True).clamp(min=1e-12)
    return direction * (magnitude.reshape(shape) / norm) - base


_RULES: dict[str, Callable[[Factors], Tensor]] = {
    "lora": _lora,
    "locon": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "full": lambda f: f["diff"],
    "norm": lambda f: f["w_norm"],
}
_OF_WEIGHT: dict[str, Callable[[Factors, Tensor], Tensor]] = {"glora": _glora, "oft": _oft, "boft": _boft, "ia3": _ia3}
