"""How tensors of several models become one: the formulas of blends, each on float32 or float64 tensors of one shape.

Symbols: a, b, c the tensors of models A, B and C; α the share of B (or of the change), β a second one; τ = model − C
the change of a tuned model against its base C. Names and formulas are those of A1111's merger, of the extension
supermerger, of sd-mecha and of mergekit, as each docstring says.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_WINDOW = 1 << 22  # numbers of a median's windows that are sorted at a time


@dataclass(frozen=True)
class Numbers:
    """What a formula takes besides tensors. density: share of a change that is kept (TIES, DARE, DELLA). spread: how
    far DELLA's densities go to either side. generator: for what is dropped by chance.
    """

    alpha: float
    beta: float = 0.0
    density: float = 0.5
    spread: float = 0.1
    generator: Callable[[int], torch.Generator] = lambda index: torch.Generator().manual_seed(index)


Formula = Callable[[Sequence[Tensor], Numbers], Tensor]


@dataclass(frozen=True)
class Mode:
    """models: how many it takes. rows: numbers depend on those in the same place only, so that tiles will do. alpha:
    the usual share. says: the formula, for people. still: with α = 0 (and β = 0) it is A itself. tells: a NaN or an
    infinity in an input shows in the result. rounds_once: PyTorch computes it in float32 for numbers of two bytes, too,
    and rounds the result alone.
    """

    formula: Formula
    models: int
    rows: bool
    alpha: float
    says: str
    still: bool = True
    tells: bool = True
    rounds_once: bool = False


def weighted_sum(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """(1 − α) a + α b. A1111's "Weighted sum"."""
    a, b = models
    return torch.lerp(a, b, n.alpha)


def add_difference(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """a + α (b − c). A1111's "Add difference"; task arithmetic, arXiv:2212.04089."""
    a, b, c = models
    return (b - c).mul_(n.alpha).add_(a)


def triple_sum(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """(1 − α − β) a + α b + β c. supermerger's "Triple sum"."""
    a, b, c = models
    return (a * (1 - n.alpha - n.beta)).add_(b, alpha=n.alpha).add_(c, alpha=n.beta)


def sum_twice(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """(1 − β) ((1 − α) a + α b) + β c. supermerger's "Sum twice"."""
    a, b, c = models
    return torch.lerp(torch.lerp(a, b, n.alpha), c, n.beta)


def train_difference(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """a + 1.8 α (b − c) |b − a| / (|b − a| + |b − c|), and a where both are 0. supermerger's "trainDifference": what A
    already has of the difference is not added again.
    """
    a, b, c = models
    near, far = (b - a).abs_(), (b - c).abs_()
    share = near / (near + far)
    return (b - c).mul_(share.nan_to_num_(0.0)).mul_(1.8 * n.alpha).add_(a)


def smooth_add(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """a + α G(M(b − c)), M the median over 3 neighbours in each direction, G a Gaussian of deviation 1. supermerger's
    "smoothAdd": a difference without its outliers.
    """
    a, b, c = models
    return gaussian(median_filter(b - c)).mul_(n.alpha).add_(a)


def cosine_a(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """k a + (1 − k) b with k = clamp(s − α, 0, 1), s the cosine of each column of a and b, both scaled to columns of
    length 1. sd-mecha's `add_cosine_a`, after supermerger's "cosineA": where the models agree, A stays.
    """
    a, b = models
    return _by_similarity(a, b, n.alpha, _cosine(_unit(a), _unit(b)))


def cosine_b(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """The same with s the mean of each column's cosine and of the whole tensors'. sd-mecha's `add_cosine_b`."""
    a, b = models
    whole = torch.sum(a * b) / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b)).clamp(min=1e-30)
    return _by_similarity(a, b, n.alpha, (_cosine(a, b) + whole) / 2)


def _unit(a: Tensor) -> Tensor:
    return a / torch.linalg.vector_norm(a, dim=0, keepdim=True).clamp(min=1e-12) if a.ndim else a.sign()


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine over dimension 0, shape of the other dimensions."""
    if a.ndim == 0:
        return (a * b).sign()
    lengths = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    cosine: Tensor = torch.sum(a * b, 0) / lengths.clamp(min=1e-8)
    return cosine


def _by_similarity(a: Tensor, b: Tensor, alpha: float, similarity: Tensor) -> Tensor:
    return torch.lerp(a, b, (1 - (similarity - alpha).clamp(0, 1)).expand_as(a))


def slerp(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """((1 − α)|a| + α|b|) (sin((1 − α)Ω) a/|a| + sin(αΩ) b/|b|) / sin Ω, Ω the angle between a and b as vectors;
    the weighted sum where they are parallel or one is 0. Shoemake 1985; sd-mecha's `slerp`. mergekit's interpolates a
    and b themselves, which is the same where they are equally long.
    """
    a, b = models
    long_a, long_b = torch.linalg.vector_norm(a), torch.linalg.vector_norm(b)
    cosine = float((torch.sum(a * b) / (long_a * long_b)).clamp(-1, 1)) if long_a * long_b > 0 else 1.0
    angle = math.acos(cosine)
    if math.sin(angle) < 1e-4:
        return torch.lerp(a, b, n.alpha)
    length = (1 - n.alpha) * long_a + n.alpha * long_b
    first, second = (math.sin(share * angle) / math.sin(angle) for share in (1 - n.alpha, n.alpha))
    result: Tensor = (a * (length / long_a * first)).add_(b * (length / long_b * second))
    return result


def ties(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """c + the mean of the changes τ that have the elected sign, weighted (1 − α, α); of each change the `density`
    largest numbers stay; the sign of each place is that of the weighted sum. TIES, arXiv:2306.01708.
    """
    *tuned, c = models
    return _elected([_trimmed(model - c, n.density) for model in tuned], n.alpha).add_(c)


def dare(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """c + (1 − α) τ_a' + α τ_b': of each change each number stays with probability p = `density` and is divided by p.
    DARE, arXiv:2311.03099 (mergekit's `dare_linear`).
    """
    *tuned, c = models
    first, second = (_dropped(model - c, n.density, n.generator(i)) for i, model in enumerate(tuned))
    return torch.lerp(first, second, n.alpha).add_(c)


def della(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """c + the elected mean, as in `ties`, of changes in which a number of a row stays with a probability that rises
    with its rank from `density` − `spread` to `density` + `spread`, and is divided by it. DELLA, arXiv:2406.11617.
    """
    *tuned, c = models
    kept = [_dropped_by_rank(model - c, n.density, n.spread, n.generator(i)) for i, model in enumerate(tuned)]
    return _elected(kept, n.alpha).add_(c)


def _trimmed(change: Tensor, density: float) -> Tensor:
    kept = round(density * change.numel())
    if kept >= change.numel():
        return change
    if kept == 0:
        return torch.zeros_like(change)
    limit = change.abs().flatten().kthvalue(change.numel() - kept + 1).values
    return torch.where(change.abs() >= limit, change, 0.0)


def _elected(changes: Sequence[Tensor], alpha: float) -> Tensor:
    weighted = [(1 - alpha) * changes[0], alpha * changes[1]]
    sign = torch.sign(weighted[0] + weighted[1])
    total, weight = torch.zeros_like(sign), torch.zeros_like(sign)
    for change, share in zip(weighted, (1 - alpha, alpha), strict=True):
        agrees = (torch.sign(change) == sign) & (sign != 0)
        total += torch.where(agrees, change, 0.0)
        weight += agrees.to(sign.dtype) * share
    return torch.where(weight != 0, total / weight, 0.0)


def _dropped(change: Tensor, density: float, generator: torch.Generator) -> Tensor:
    if density >= 1:
        return change
    kept = torch.rand(change.shape, generator=generator, dtype=change.dtype) < density
    return torch.where(kept, change / density, 0.0)


def _dropped_by_rank(change: Tensor, density: float, spread: float, generator: torch.Generator) -> Tensor:
    rows = change.flatten(1) if change.ndim > 1 else change.reshape(1, -1)
    ranks = rows.abs().argsort(1).argsort(1).to(change.dtype)
    share = ranks / max(1, rows.shape[1] - 1)
    chance = (density + spread * (2 * share - 1)).clamp(1e-6, 1.0).reshape(change.shape)
    kept = torch.rand(change.shape, generator=generator, dtype=change.dtype) < chance
    return torch.where(kept, change / chance, 0.0)


def geometric(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """Real part of a^(1 − α) b^α over the complex numbers: |a|^(1 − α) |b|^α cos(π θ), θ = (1 − α)[a < 0] + α [b < 0].
    sd-mecha's `geometric_sum`.
    """
    a, b = models
    angle = (a < 0).to(a.dtype) * (1 - n.alpha) + (b < 0).to(b.dtype) * n.alpha
    return a.abs().pow_(1 - n.alpha).mul_(b.abs().pow_(n.alpha)).mul_(torch.cos(angle.mul_(math.pi)))


def median(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """(1 − α) a + α median(a, b, c), place by place."""
    a, b, c = models
    middle = torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
    return torch.lerp(a, middle, n.alpha)


def clamp(models: Sequence[Tensor], n: Numbers) -> Tensor:
    """(1 − α) a + α a', a' the nearest number to a between b and c. sd-mecha's `clamp`."""
    a, b, c = models
    return torch.lerp(a, torch.minimum(torch.maximum(a, torch.minimum(b, c)), torch.maximum(b, c)), n.alpha)


def median_filter(a: Tensor) -> Tensor:
    """Median of the 3 × … × 3 neighbours in all of a's dimensions; beyond the edge the edge is mirrored
    (scipy.ndimage's "reflect").
    """
    if a.ndim == 0:
        return a
    padded = a
    for axis in range(a.ndim):
        first, last = padded.narrow(axis, 0, 1), padded.narrow(axis, padded.shape[axis] - 1, 1)
        padded = torch.cat([first, padded, last], axis)
    windows = 3**a.ndim
    rows = max(1, _WINDOW * len(a) // (a.numel() * windows))
    found = []
    for start in range(0, len(a), rows):
        some = padded[start : start + rows + 2]
        shifts = itertools.product(range(3), repeat=a.ndim)
        sizes = (min(rows, len(a) - start), *a.shape[1:])
        views = [some[tuple(slice(s, s + n) for s, n in zip(shift, sizes, strict=True))] for shift in shifts]
        found.append(torch.stack(views).median(0).values)
    return torch.cat(found)


def gaussian(a: Tensor, deviation: float = 1.0) -> Tensor:
    """Gaussian over all of a's dimensions, cut off at 4 deviations, edges mirrored (scipy.ndimage.gaussian_filter)."""
    radius = int(4 * deviation + 0.5)
    x = torch.arange(-radius, radius + 1, dtype=a.dtype)
    kernel = torch.exp(-0.5 * (x / deviation) ** 2)
    kernel /= kernel.sum()
    for axis in range(a.ndim):
        size = a.shape[axis]
        places = (torch.arange(-radius, size + radius) % (2 * size)).tolist()
        mirrored = torch.tensor([place if place < size else 2 * size - 1 - place for place in places])
        padded = a.index_select(axis, mirrored)
        total = torch.zeros_like(a)
        for shift, share in enumerate(kernel.tolist()):
            total.add_(padded.narrow(axis, shift, size), alpha=share)
        a = total
    return a


MODES: dict[str, Mode] = {
    "weighted-sum": Mode(weighted_sum, 2, True, 0.5, "(1 − α) A + α B", rounds_once=True),
    "add-difference": Mode(add_difference, 3, True, 1.0, "A + α (B − C)"),
    "triple-sum": Mode(triple_sum, 3, True, 1 / 3, "(1 − α − β) A + α B + β C"),
    "sum-twice": Mode(sum_twice, 3, True, 0.5, "(1 − β) ((1 − α) A + α B) + β C"),
    "train-difference": Mode(train_difference, 3, True, 1.0, "A + 1.8 α (B − C) |B − A| / (|B − A| + |B − C|)"),
    "smooth-add": Mode(smooth_add, 3, False, 1.0, "A + α smoothed(B − C)", tells=False),
    "cosine-a": Mode(
        cosine_a, 2, False, 0.5, "A where columns agree, else B (A's structure)", still=False, tells=False
    ),
    "cosine-b": Mode(
        cosine_b, 2, False, 0.5, "A where columns agree, else B (B's structure)", still=False, tells=False
    ),
    "slerp": Mode(slerp, 2, False, 0.5, "from A to B along the arc between them", tells=False),
    "ties": Mode(ties, 3, False, 0.5, "C + elected(A − C, B − C)", still=False, tells=False),
    "dare": Mode(dare, 3, False, 0.5, "C + (1 − α) thinned(A − C) + α thinned(B − C)", still=False, tells=False),
    "della": Mode(della, 3, False, 0.5, "C + elected(thinned by rank(A − C, B − C))", still=False, tells=False),
    "geometric": Mode(geometric, 2, True, 0.5, "A^(1 − α) B^α", tells=False),
    "median": Mode(median, 3, True, 1.0, "(1 − α) A + α median(A, B, C)", tells=False),
    "clamp": Mode(clamp, 3, True, 1.0, "(1 − α) A + α (A limited to between B and C)", tells=False),
}
