"""The parts that an adapter's module may have, kind by kind: which belong together, what they must look like, and the
shape of the weight change that they stand for, which is known before anything is multiplied.

Parts carry the names of Kohya and LyCORIS files. Shapes: out and in are the layer's sizes, r the rank, (h, w) the
kernel of a convolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..formats.numbers import Numbers

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Factors: TypeAlias = "Mapping[str, Tensor]"
Shape = tuple[int, ...]

_HADA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_GLORA = ("a1.weight", "a2.weight", "b1.weight", "b2.weight")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t1", "lokr_t2")
# What may stand beside every kind: a change of the bias, and numbers added to the product, densely or sparsely.
_SPARSE = ("bias_indices", "bias_values", "bias_size")
_BESIDE = frozenset({"alpha", "scale", "dora_scale", "diff_b", "bias", *_SPARSE})


@dataclass(frozen=True)
class _Kind:
    """tell: any of these parts makes a module of this kind. needs: it must have these. may: it may have these."""

    tell: tuple[str, ...]
    needs: tuple[str, ...]
    may: frozenset[str]


# Most telling first; a bare change of a bias is the weakest sign.
_KINDS = {
    "lora": _Kind(
        ("lora_down.weight", "lora_up.weight", "lora_mid.weight"),
        ("lora_down.weight", "lora_up.weight"),
        frozenset({"lora_mid.weight", "lora_up.bias"}) | _BESIDE,
    ),
    "loha": _Kind((*_HADA, "hada_t1", "hada_t2"), _HADA, frozenset({"hada_t1", "hada_t2"}) | _BESIDE),
    "lokr": _Kind(_LOKR, (), frozenset(_LOKR) | _BESIDE),
    "glora": _Kind(_GLORA, _GLORA, frozenset({"bm.weight"}) | _BESIDE),
    "oft": _Kind(("oft_blocks", "oft_diag"), (), frozenset({"oft_blocks", "oft_diag", "rescale", "alpha", "diff_b"})),
    "ia3": _Kind(("on_input",), ("weight", "on_input"), frozenset({"alpha", "scale"})),
    "norm": _Kind(("w_norm", "b_norm"), (), frozenset({"w_norm", "b_norm"})),
    "full": _Kind(("diff", "diff_b"), (), frozenset({"diff", "diff_b", "alpha", "scale"})),
}
KNOWN_PARTS = frozenset(part for one in _KINDS.values() for part in (*one.tell, *one.needs, *one.may))
TELLING_PARTS = frozenset(part for one in _KINDS.values() for part in one.tell)
DISPLAY = {"glora": "GLoRA", "oft": "OFT", "boft": "BOFT", "ia3": "IA3"}
_INTEGERS = frozenset({"on_input", "bias_indices", "bias_size"})
_NUMBERS = frozenset({"alpha", "scale", "on_input"})
_MOST_DIMENSIONS = 4


def kind(factors: Factors) -> str:
    """ "lora", "locon" (a LoRA with a kernel), "loha", "lokr", "full", "norm", "glora", "oft", "boft" (butterfly OFT),
    "ia3" or "unknown".
    """
    name = _kind(factors)
    if name == "lora" and ("lora_mid.weight" in factors or _has_kernel(factors.get("lora_down.weight"))):
        return "locon"
    if name == "oft" and "oft_blocks" in factors and factors["oft_blocks"].ndim == 4:
        return "boft"
    return name


def _kind(factors: Factors) -> str:
    return next((name for name, one in _KINDS.items() if not factors.keys().isdisjoint(one.tell)), "unknown")


def _has_kernel(weight: Tensor | None) -> bool:
    return weight is not None and weight.ndim == 4 and weight.shape[2:] != (1, 1)


def rank(factors: Factors) -> int | None:
    """Inner size of the factors; None for kinds that have none (full differences, LoKr of two full matrices, OFT …)."""
    if "lokr_t2" in factors:
        return factors["lokr_t2"].shape[0]
    for part in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in factors:
            return factors[part].shape[0]
    if _kind(factors) == "glora":
        return min(factors["b1.weight"].shape[:2])
    return None


def alpha(factors: Factors) -> float | None:
    """The alpha in the file; None when absent, which means alpha = rank."""
    return float(factors["alpha"]) if "alpha" in factors else None


def scale(factors: Factors) -> float:
    """What the product is multiplied by: the part `scale` where there is one (as A1111 reads it), else alpha / rank, or
    1 where either is absent.
    """
    if "scale" in factors:
        return float(factors["scale"])
    r, a = rank(factors), alpha(factors)
    return 1.0 if r is None or a is None or r == 0 else a / r


def check(factors: Factors, finite: bool = True) -> None:
    """Raise ValueError, beginning with a part's name, for a module whose parts do not make sense: one that is missing
    or does not belong there, numbers that are none, factors of shapes that cannot be multiplied. Nothing is multiplied.

    finite: also for values that are not finite, which means to read them all.
    """
    name = _kind(factors)
    one = _KINDS[name]
    for part in sorted(factors):
        if part not in one.tell and part not in one.needs and part not in one.may:
            raise ValueError(f"{part} does not belong to a module of the kind {DISPLAY.get(name, name)}")
        _check_tensor(part, factors[part], finite)
    for part in one.needs:
        if part not in factors:
            raise ValueError(f"{part} is missing")
    absent = [part for part in _SPARSE if part not in factors]
    if absent and not {"bias_values", "bias_size"}.isdisjoint(factors):  # indices alone carry no numbers
        raise ValueError(f"{absent[0]} is missing")
    change_shape(factors)


def _check_tensor(part: str, tensor: Tensor, finite: bool) -> None:
    kind_of_number = str(tensor.dtype).removeprefix("torch.")
    if tensor.is_complex() or (kind_of_number == "bool" and part != "on_input"):
        raise ValueError(f"{part} holds {kind_of_number} numbers")
    if part in _INTEGERS and tensor.is_floating_point() and part != "on_input":
        raise ValueError(f"{part} holds no whole numbers")
    if part not in _INTEGERS | _NUMBERS and not tensor.is_floating_point():
        raise ValueError(f"{part} holds whole numbers")
    if part in _NUMBERS:
        if tensor.numel() != 1:
            raise ValueError(f"{part} holds {tensor.numel()} numbers instead of one")
        if not math.isfinite(float(tensor)):
            raise ValueError(f"{part} is {float(tensor):g}")
    elif tensor.numel() == 0:
        raise ValueError(f"{part} is empty")
    elif tensor.ndim == 0 or tensor.ndim > _MOST_DIMENSIONS:
        raise ValueError(f"{part} has {tensor.ndim} dimensions")
    elif finite and not is_finite(tensor):
        raise ValueError(f"{part} holds NaN or infinite numbers")


def is_finite(tensor: Tensor | Numbers) -> bool:
    """Whether every value is a number; 8-bit floats, which PyTorch does not ask, are widened."""
    if isinstance(tensor, Numbers):
        return tensor.is_finite()
    if not tensor.is_floating_point():
        return True
    import torch

    return bool(torch.isfinite(tensor.to(torch.float16) if tensor.dtype.itemsize == 1 else tensor).all())


def change_shape(factors: Factors) -> Shape | None:
    """Shape of the weight change: (out, in[, h, w]), or (out, in·h·w) for LoHa and LoKr without Tucker; None where the
    layer's own weight decides it (OFT, IA3) or no weight is changed. Raises ValueError for factors that do not fit.
    """
    try:
        shape = _RULES[_kind(factors)](factors)
    except IndexError as error:
        raise ValueError("its factors have too few dimensions") from error
    if shape is not None and "bias" in factors and math.prod(factors["bias"].shape) != math.prod(shape):
        raise _misfit("bias", factors["bias"].shape)
    return shape


def in_features(factors: Factors) -> int | None:
    """The layer's number of inputs as far as the parts tell it."""
    if _kind(factors) == "ia3":
        return factors["weight"].numel() if float(factors["on_input"]) else None
    shape = change_shape(factors)
    return None if shape is None or len(shape) < 2 else shape[1]


def _misfit(part: str, shape: torch.Size) -> ValueError:
    return ValueError(f"its factors do not fit each other: {part} is {tuple(shape)}")


def _product(f: Factors, left: str, right: str) -> Shape:
    """Shape of left @ right, matrices or convolutions; a kernel belongs to the right one."""
    a, b = f[left].shape, f[right].shape
    if len(a) < 2 or len(b) < 2 or a[1] != b[0] or math.prod(a) != a[0] * a[1]:
        raise _misfit(left, a)
    return (a[0], *b[1:])


def _tucker(f: Factors, core: str, left: Shape, right: Shape) -> Shape:
    """Shape of a product with a kernel in the middle. left: (out, r), right: (r, in)."""
    t = f[core].shape
    if len(t) < 3 or t[:2] != (left[1], right[0]) or math.prod(right) != right[0] * right[1]:
        raise _misfit(core, t)
    return (left[0], right[1], *t[2:])


def _lora(f: Factors) -> Shape:
    if "lora_mid.weight" not in f:
        return _product(f, "lora_up.weight", "lora_down.weight")
    up, down = f["lora_up.weight"].shape, f["lora_down.weight"].shape
    if len(up) < 2 or math.prod(up) != up[0] * up[1]:
        raise _misfit("lora_up.weight", up)
    return _tucker(f, "lora_mid.weight", (up[0], up[1]), tuple(down))


def _loha(f: Factors) -> Shape:
    found = []
    for i in (1, 2):
        a, b = f"hada_w{i}_a", f"hada_w{i}_b"
        if f"hada_t{i}" in f:  # a: (r, out), b: (r, in)
            found.append(_tucker(f, f"hada_t{i}", (f[a].shape[1], f[a].shape[0]), tuple(f[b].shape)))
        else:
            found.append(_product(f, a, b))
    if found[0] != found[1]:
        raise _misfit("hada_w2_a", f["hada_w2_a"].shape)
    return found[0]


def _lokr(f: Factors) -> Shape:
    first, second = _kronecker(f, 1), _kronecker(f, 2)
    return (first[0] * second[0], first[1] * second[1], *second[2:])


def _kronecker(f: Factors, index: int) -> Shape:
    whole, a, b, t = (f"lokr_{name}" for name in (f"w{index}", f"w{index}_a", f"w{index}_b", f"t{index}"))
    if whole in f:
        shape = tuple(f[whole].shape)
        if len(shape) < 2 or (index == 1 and math.prod(shape) != shape[0] * shape[1]):
            raise _misfit(whole, f[whole].shape)
        return shape
    for part in (a, b):
        if part not in f:
            raise ValueError(f"{whole if a not in f and b not in f else part} is missing")
    if t in f:
        return _tucker(f, t, (f[a].shape[1], f[a].shape[0]), tuple(f[b].shape))
    shape = _product(f, a, b)
    return shape[:2] if index == 1 and math.prod(shape) == shape[0] * shape[1] else shape


def is_old_glora(f: Factors) -> bool:
    """Whether the factors stand as LyCORIS wrote them before version 2: b1 (r, in), b2 (out, r), a1 (r, in) and a2
    (in, r).

    Now they are b1 (out, r), b2 (r, in), a1 (in, r), a2 (r, in); a square of both fits is the new form.
    """
    a1, a2, b1, b2 = (f[part].shape for part in _GLORA)
    return not a1[1] == a2[0] == b1[1] == b2[0] and a2[1] == a1[0] == b2[1] == b1[0]


def _glora(f: Factors) -> Shape:
    if is_old_glora(f):
        shape, inner = _product(f, "b2.weight", "b1.weight"), _product(f, "a2.weight", "a1.weight")
    else:
        inner = _product(f, "a1.weight", "a2.weight")
        if "bm.weight" in f:
            up, down = f["b1.weight"].shape, f["b2.weight"].shape
            shape = _tucker(f, "bm.weight", (up[0], up[1]), tuple(down))
        else:
            shape = _product(f, "b1.weight", "b2.weight")
    if inner[:2] != (shape[1], shape[1]) or math.prod(inner) != shape[1] ** 2:
        raise _misfit("a1.weight", f["a1.weight"].shape)
    return shape


def _weightless(f: Factors) -> None:
    """IA3 scales the weight itself."""


def _oft(f: Factors) -> None:
    part = "oft_blocks" if "oft_blocks" in f else "oft_diag"
    shape = f[part].shape
    butterfly = part == "oft_blocks" and len(shape) == 4
    if not (len(shape) == 3 or butterfly) or shape[-1] != shape[-2] or (butterfly and shape[-1] % 2):
        raise _misfit(part, shape)
    if "rescale" in f and f["rescale"].numel() != shape[-3] * shape[-1]:
        raise _misfit("rescale", f["rescale"].shape)


def oft_outputs(factors: Factors) -> int:
    """Outputs of the layer that an OFT's blocks turn."""
    blocks = factors["oft_blocks"] if "oft_blocks" in factors else factors["oft_diag"]
    return blocks.shape[-3] * blocks.shape[-1]


_RULES: dict[str, Callable[[Factors], Shape | None]] = {
    "lora": _lora,
    "loha": _loha,
    "lokr": _lokr,
    "glora": _glora,
    "oft": _oft,
    "ia3": _weightless,
    "full": lambda f: tuple(f["diff"].shape) if "diff" in f else None,
    "norm": lambda f: tuple(f["w_norm"].shape) if "w_norm" in f else None,
}
