"""Low-rank approximation of weight changes: randomised SVD, SVD of a product, nearest Kronecker product, and how many
singular values to keep.

Symbols: A (m, n) the matrix, σ₁ ≥ σ₂ ≥ … its singular values, k the rank, p the oversampling; energy is
||A||²_F = Σ σⱼ².
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

OVERSAMPLING = 16
VIEWS = 4
_EXACT_SHARE = 0.5  # of the smaller side: beyond it the range finder costs more than all singular values
_INDEPENDENT = 1e-4  # smallest over largest diagonal of a root that is inverted: the square of it times 1e-16 is lost
_DISTINCT = 1e-2  # the same for a Gram matrix that was multiplied in float32
_SMALL = 64  # a matrix with a side of at most this is decomposed exactly


@dataclass(frozen=True)
class SVD:
    """A ≈ u diag(s) vh. u: (m, k), s: (k,) falling, vh: (k, n). energy: ||A||²_F of the whole A.

    exact: every singular value is there, so nothing was left out but rounding.
    """

    u: Tensor
    s: Tensor
    vh: Tensor
    energy: float
    exact: bool

    @property
    def rank(self) -> int:
        return len(self.s)

    def first(self, k: int) -> SVD:
        """The k largest triples."""
        return SVD(self.u[:, :k], self.s[:k], self.vh[:k], self.energy, self.exact and k >= self.rank)

    def error(self, k: int) -> float:
        """||A − A_k||_F where A_k has the k largest triples, to about 3e-4 ||A||_F, the root of float32's rounding.

        u's columns are orthonormal and diag(s) vh = uᵀA, so the energies of the two parts add up (Pythagoras); this
        holds for a randomised decomposition too.
        """
        return math.sqrt(max(0.0, self.energy - float(self.s[:k].double().square().sum())))

    def factors(self) -> tuple[Tensor, Tensor]:
        """(m, k) and (k, n) whose product this is; each takes the root of every singular value, which suits half
        precision best.
        """
        root = self.s.sqrt()
        return self.u * root, root[:, None] * self.vh


def randomised_svd(
    a: Tensor, rank: int, generator: torch.Generator, oversampling: int = OVERSAMPLING, views: int = VIEWS
) -> SVD:
    """The `rank` largest singular triples of A (m, n), float32: subspace iteration of Halko, Martinsson & Tropp 2011
    (arXiv:0909.4061, algorithms 4.4 and 5.1), which may end on either side of A (Bjarkason 2019, arXiv:1804.07531).

    views: how often A or Aᵀ is multiplied with a thin matrix, which is what it costs; at least 2, and each brings the
    error nearer to the smallest. With 2 the expected error is at most `expected_error` (theorem 10.5). The error that
    was made is `SVD.error`. Small matrices and large ranks are decomposed exactly.
    """
    m, n = a.shape
    width = min(rank + oversampling, m, n)
    if min(m, n) <= _SMALL or width > _EXACT_SHARE * min(m, n):
        return exact_svd(a).first(rank)
    energy = squares(a)
    seen, unseen = a @ torch.randn(n, width, generator=generator, dtype=a.dtype), a.mT
    for _ in range(views - 2):
        seen, unseen = unseen @ _basis(seen), unseen.mT
    basis, _ = torch.linalg.qr(seen)
    rows, core = torch.linalg.qr(unseen @ basis)  # unseen basis = rows core
    left, s, right = torch.linalg.svd(core)
    one, other = rows @ left, basis @ right.mT  # of `unseen` and of its transpose
    u, v = (other, one) if views % 2 == 0 else (one, other)
    return SVD(u, s, v.mT, energy, False).first(rank)


def _basis(y: Tensor) -> Tensor:
    """A basis of y's columns, orthonormal to float32's rounding times their condition: by the Cholesky root of the Gram
    matrix, which costs a product, or by Householder's QR where they are nearly dependent.
    """
    root = _root((y.mT @ y).double(), _DISTINCT)
    basis: Tensor
    if root is None:
        basis, _ = torch.linalg.qr(y)
    else:
        basis = torch.linalg.solve_triangular(root.float(), y, upper=True, left=False)
    return basis


def expected_error(tail: float, rank: int, oversampling: int = OVERSAMPLING) -> float:
    """Bound on E ||A − QQᵀA||_F from two views of A: (1 + k / (p − 1))^½ (Σ_{j>k} σⱼ²)^½, Halko et al. 2011,
    theorem 10.5. tail: (Σ_{j>k} σⱼ²)^½, the error of the best approximation of rank k.
    """
    return math.sqrt(1 + rank / (oversampling - 1)) * tail


def exact_svd(a: Tensor) -> SVD:
    """Every singular triple of A (m, n), by LAPACK, thin, in A's type."""
    u, s, vh = torch.linalg.svd(a, full_matrices=False)
    return SVD(u, s, vh, squares(a), True)


def product_svd(up: Tensor, down: Tensor, keep: Callable[[Tensor, float], int] | None = None) -> SVD:
    """Exact SVD of up @ down, (m, r) and (r, n), which is not formed where r is small. Float64 inside, float32 out.

    keep: how many of the largest triples are wanted, from all singular values and the energy; the others cost nothing.

    With up = Q₁R₁ and downᵀ = Q₂R₂ it is that of the r × r matrix R₁R₂ᵀ. R is the Cholesky root of the Gram matrix, and
    Q = up R⁻¹ is never formed (Cholesky QR, Golub & Van Loan 5.2); columns near to dependent get Householder's QR.
    """
    up, down = up.double(), down.double()
    if up.shape[1] > min(up.shape[0], down.shape[1]):
        found = exact_svd(up @ down)
        found = found.first(keep(found.s, found.energy) if keep else found.rank)
        return SVD(found.u.float(), found.s.float(), found.vh.float(), found.energy, found.exact)
    inner, outer = _root(up.mT @ up), _root(down @ down.mT)
    by_roots = inner is not None and outer is not None
    left, right = up, down.mT
    if not by_roots:
        left, inner = torch.linalg.qr(up)
        right, outer = torch.linalg.qr(down.mT)
    assert inner is not None and outer is not None
    u, s, vh = torch.linalg.svd(inner @ outer.mT)
    energy = float(s.square().sum())
    k = keep(s, energy) if keep else len(s)
    u, v = u[:, :k], vh[:k].mT
    if by_roots:
        u, v = (torch.linalg.solve_triangular(root, x, upper=True) for root, x in ((inner, u), (outer, v)))
    return SVD((left @ u).float(), s[:k].float(), (right @ v).mT.float(), energy, k == len(s))


def _root(gram: Tensor, least: float = _INDEPENDENT) -> Tensor | None:
    """Upper R with RᵀR = gram, or None where its columns are so near to dependent that digits would be lost."""
    root, fault = torch.linalg.cholesky_ex(gram, upper=True)
    diagonal = root.diagonal()
    return root if not fault and diagonal.min() > least * diagonal.max() else None


def product_energy(up: Tensor, down: Tensor) -> float:
    """||up @ down||²_F from the Gram matrices, in float64."""
    up, down = up.double(), down.double()
    return float(((up.mT @ up) * (down @ down.mT)).sum().clamp(min=0))


def kronecker_svd(left: SVD, right: SVD, rank: int) -> SVD:
    """The `rank` largest triples of kron(B, C) from those of B and C: singular values multiply, vectors too."""
    s = torch.outer(left.s, right.s).flatten()
    best = s.argsort(descending=True, stable=True)[:rank]
    i, j = best // right.rank, best % right.rank
    u = torch.einsum("ak,ck->ack", left.u[:, i], right.u[:, j]).flatten(0, 1)
    vh = torch.einsum("kb,kd->kbd", left.vh[i], right.vh[j]).flatten(1)
    exact = left.exact and right.exact and len(best) == len(s)
    return SVD(u, s[best], vh, left.energy * right.energy, exact)


def nuclear_norm(a: Tensor) -> float:
    """Σ σⱼ of A, from the eigenvalues of the smaller Gram matrix in float64."""
    a = a.double()
    gram = a @ a.mT if a.shape[0] <= a.shape[1] else a.mT @ a
    return float(torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().sum())


def squares(a: Tensor) -> float:
    """||A||²_F: of 65,536 numbers at a time in A's type, their sum in float64."""
    return math.fsum(float(torch.dot(tile, tile)) for tile in torch.split(a.reshape(-1), 1 << 16))


def nearest_kronecker(a: Tensor, outer: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """B (outer) and C with the smallest ||A − kron(B, C)||_F: Van Loan & Pitsianis 1993.

    A's blocks, one a row, are a matrix whose best approximation of rank 1 is vec(B) vec(C)ᵀ. A: (m, n), sides that
    `outer` divides. Both factors have the same norm.
    """
    rows = _blocks(a, outer)  # (m1 n1, m2 n2)
    values, vectors = torch.linalg.eigh(rows.double() @ rows.double().mT)
    sigma = math.sqrt(max(0.0, float(values[-1])))
    if sigma == 0:
        return a.new_zeros(outer), a.new_zeros(a.shape[0] // outer[0], a.shape[1] // outer[1])
    b = vectors[:, -1]
    c = b @ rows.double() / sigma
    root = math.sqrt(sigma)
    inner = (a.shape[0] // outer[0], a.shape[1] // outer[1])
    return (root * b).reshape(outer).to(a.dtype), (root * c).reshape(inner).to(a.dtype)


def low_rank_kronecker(
    a: Tensor, outer: tuple[int, int], rank: int, generator: torch.Generator, rounds: int = 4
) -> tuple[Tensor, SVD]:
    """B and C of rank at most `rank` with a small ||A − kron(B, C)||_F, by turns: for a given B the best C is known,
    and for that C the best B, so the error never grows. Starts from the nearest Kronecker product.
    """
    b, c = nearest_kronecker(a, outer)
    rows = _blocks(a, outer)
    found = randomised_svd(c, rank, generator)
    for _ in range(rounds):
        flat = ((found.u * found.s) @ found.vh).flatten()
        size = float(flat.square().sum())
        if size == 0:
            break
        b = (rows @ flat / size).reshape(outer)
        c = (b.flatten() @ rows / b.square().sum()).reshape(c.shape)
        found = randomised_svd(c, rank, generator)
    return b, found


def _blocks(a: Tensor, outer: tuple[int, int]) -> Tensor:
    """A's blocks, each flattened into a row: (m1 n1, m2 n2)."""
    (m1, n1), (m, n) = outer, a.shape
    return a.reshape(m1, m // m1, n1, n // n1).transpose(1, 2).reshape(m1 * n1, -1)


@dataclass(frozen=True)
class RankRule:
    """How many singular values are kept: at most `rank`, and by at most one of the others (names of kohya's
    resize_lora: sv_ratio, sv_fro, sv_cumulative).

    energy: the smallest k with Σ_{j≤k} σⱼ² ≥ energy Σ σⱼ². fro: the same of the norms, ||A_k||_F ≥ fro ||A||_F.
    ratio: every σⱼ ≥ σ₁ / ratio. cumulative: the smallest k with Σ_{j≤k} σⱼ ≥ cumulative Σ σⱼ.
    """

    rank: int | None = None
    energy: float | None = None
    fro: float | None = None
    ratio: float | None = None
    cumulative: float | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("energy", "fro", "ratio", "cumulative") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{given[0]} and {given[1]} are two rules for one rank; give one of them")

    @property
    def dynamic(self) -> bool:
        """Whether layers may get different ranks."""
        return any(value is not None for value in (self.energy, self.fro, self.ratio, self.cumulative))

    def choose(self, s: Tensor, energy: float, total: float | None = None) -> int:
        """How many of the falling values s to keep, at least 1. energy: Σ σⱼ² and total: Σ σⱼ of the whole matrix;
        total defaults to the sum of s.
        """
        s = s.double()
        k = len(s)
        if self.ratio is not None:
            k = int((s * self.ratio >= s[0]).sum())
        elif self.cumulative is not None:
            k = _reaching(s.cumsum(0), self.cumulative * (float(s.sum()) if total is None else total))
        elif self.energy is not None or self.fro is not None:
            share = self.energy if self.energy is not None else float(self.fro or 0) ** 2
            k = _reaching(s.square().cumsum(0), share * energy)
        return max(1, min(k, self.rank or k))


def _reaching(sums: Tensor, wanted: float) -> int:
    """How many are needed until the rising sums reach what is wanted, to float32's rounding; all when they do not."""
    return min(len(sums), int((sums < wanted * (1 - 1e-6)).sum()) + 1)
