"""Low-rank approximation: errors against the full SVD, stated bounds, and Kronecker products."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from maquette.core import lowrank
from maquette.core.lowrank import RankRule


def matrix(m: int, n: int, decay: float = 0.7, seed: int = 0) -> Tensor:
    """A random matrix with the singular values j^-decay."""
    generator = torch.Generator().manual_seed(seed)
    k = min(m, n)
    u = torch.linalg.qr(torch.randn(m, k, generator=generator, dtype=torch.float64))[0]
    v = torch.linalg.qr(torch.randn(n, k, generator=generator, dtype=torch.float64))[0]
    return ((u * torch.arange(1, k + 1, dtype=torch.float64) ** -decay) @ v.mT).float()


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def error(a: Tensor, svd: lowrank.SVD) -> float:
    return float((a.double() - (svd.u * svd.s).double() @ svd.vh.double()).norm())


@pytest.mark.parametrize("shape", [(320, 200), (200, 320), (160, 1000)])
@pytest.mark.parametrize("decay", [0.3, 0.7, 2.0])
def test_a_randomised_svd_is_nearly_the_best(shape: tuple[int, int], decay: float) -> None:
    a = matrix(*shape, decay)
    s = torch.linalg.svdvals(a.double())
    best = float(s[16:].square().sum().sqrt())
    found = lowrank.randomised_svd(a, 16, generator())
    assert not found.exact and found.rank == 16
    assert best * (1 - 1e-6) <= error(a, found) <= 1.02 * best
    assert found.error(16) == pytest.approx(error(a, found), abs=3e-4 * float(a.norm()))
    assert torch.allclose(found.u.mT @ found.u, torch.eye(16), atol=1e-5)


def test_the_stated_bound_holds_from_two_views() -> None:
    """Theorem 10.5: the mean over random test matrices, 12 + 8 columns wide."""
    a = matrix(300, 240, 0.5)
    tail = float(torch.linalg.svdvals(a.double())[12:].square().sum().sqrt())
    made = []
    for seed in range(20):
        made.append(error(a, lowrank.randomised_svd(a, 12 + 8, torch.Generator().manual_seed(seed), 0, 2)))
    mean = sum(made) / len(made)
    best = float(torch.linalg.svdvals(a.double())[20:].square().sum().sqrt())
    assert best < mean <= lowrank.expected_error(tail, 12)
    assert lowrank.expected_error(tail, 12, 8) == pytest.approx(tail * math.sqrt(1 + 12 / 7))


def test_a_matrix_of_low_rank_is_recovered() -> None:
    a = matrix(400, 8, 0.2) @ matrix(8, 300, 0.2)
    found = lowrank.randomised_svd(a, 8, generator())
    assert error(a, found) <= 1e-6 * float(a.norm())


@pytest.mark.parametrize(("m", "r", "n"), [(300, 16, 200), (20, 32, 300), (7, 7, 7)])
def test_the_svd_of_a_product_is_that_of_the_matrix(m: int, r: int, n: int) -> None:
    torch.manual_seed(0)
    up, down = torch.randn(m, r), torch.randn(r, n)
    found = lowrank.product_svd(up, down)
    dense = torch.linalg.svdvals(up.double() @ down.double())[: found.rank]
    assert torch.allclose(found.s.double(), dense, rtol=1e-6)
    left, right = found.factors()
    assert torch.allclose(left @ right, up @ down, atol=1e-4)
    assert found.first(3).error(3) == pytest.approx(float(dense[3:].square().sum().sqrt()), rel=1e-4)


def test_products_with_dependent_columns() -> None:
    """A column twice, one of nothing, and columns of very different sizes: no digit is lost."""
    torch.manual_seed(0)
    up, down = torch.randn(300, 8), torch.randn(8, 200)
    up[:, 1], up[:, 2], down[3] = up[:, 0], 0.0, 1e-6 * down[3]
    for left, right in ((up, down), (down.mT, up.mT), (torch.zeros(30, 3), torch.zeros(3, 20))):
        found = lowrank.product_svd(left, right)
        assert torch.allclose((found.u * found.s) @ found.vh, left @ right, atol=1e-5)
        assert torch.allclose(found.u.mT @ found.u, torch.eye(found.rank), atol=1e-5)
        assert lowrank.product_energy(left, right) == pytest.approx(found.energy, abs=1e-9)


def test_the_svd_of_a_kronecker_product() -> None:
    torch.manual_seed(0)
    b, c = torch.randn(4, 3), torch.randn(10, 12)
    whole = torch.kron(b, c)
    found = lowrank.kronecker_svd(lowrank.exact_svd(b), lowrank.exact_svd(c), 30)
    assert found.exact and torch.allclose(found.s, torch.linalg.svdvals(whole)[:30], atol=1e-4)
    assert torch.allclose((found.u * found.s) @ found.vh, whole, atol=1e-4)
    part = lowrank.kronecker_svd(lowrank.exact_svd(b), lowrank.exact_svd(c), 5)
    assert not part.exact
    assert error(whole, part) == pytest.approx(float(torch.linalg.svdvals(whole)[5:].square().sum().sqrt()), rel=1e-4)


def test_the_nearest_kronecker_product() -> None:
    """A product is found again; for another matrix no random factor with its best partner is nearer."""
    torch.manual_seed(0)
    b, c = torch.randn(4, 2), torch.randn(5, 9)
    found = torch.kron(*lowrank.nearest_kronecker(torch.kron(b, c), (4, 2)))
    assert torch.allclose(found, torch.kron(b, c), atol=1e-5)
    a = torch.randn(20, 18)
    best = float((a - torch.kron(*lowrank.nearest_kronecker(a, (4, 2)))).norm())
    blocks = a.reshape(4, 5, 2, 9)
    for seed in range(200):
        b = torch.randn(4, 2, generator=torch.Generator().manual_seed(seed))
        c = torch.einsum("ambn,ab->mn", blocks, b) / b.square().sum()
        assert best <= float((a - torch.kron(b, c)).norm()) + 1e-5
    zero = lowrank.nearest_kronecker(torch.zeros(4, 4), (2, 2))
    assert all(torch.equal(factor, torch.zeros(2, 2)) for factor in zero)


def test_a_kronecker_product_with_a_factor_of_low_rank() -> None:
    torch.manual_seed(0)
    b, c = torch.randn(4, 4), torch.randn(100, 5) @ torch.randn(5, 90)
    left, right = lowrank.low_rank_kronecker(torch.kron(b, c), (4, 4), 5, generator())
    assert torch.allclose(torch.kron(left, (right.u * right.s) @ right.vh), torch.kron(b, c), atol=1e-3)
    a = torch.randn(400, 360)
    errors = []
    for rounds in (0, 1, 4):
        left, right = lowrank.low_rank_kronecker(a, (4, 4), 5, generator(), rounds)
        errors.append(float((a - torch.kron(left, (right.u * right.s) @ right.vh)).norm()))
    assert errors[0] >= errors[1] >= errors[2]


S = torch.tensor([4.0, 2.0, 2.0, 1.0, 0.5])
ENERGY = float(S.square().sum())  # 25.25; sum 9.5


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        (RankRule(), 5),
        (RankRule(rank=3), 3),
        (RankRule(rank=9), 5),
        (RankRule(energy=0.6), 1),  # 16 of 25.25 is 0.634
        (RankRule(energy=0.64), 2),
        (RankRule(energy=1.0), 5),
        (RankRule(fro=0.8), 2),  # the root of 20 / 25.25 is 0.89, of 16 / 25.25 is 0.796
        (RankRule(ratio=2.0), 3),
        (RankRule(ratio=1.0), 1),
        (RankRule(ratio=100.0), 5),
        (RankRule(cumulative=0.42), 1),  # 4 of 9.5 is 0.421
        (RankRule(cumulative=0.64), 3),
        (RankRule(rank=2, energy=0.99), 2),
    ],
)
def test_rules_of_rank(rule: RankRule, kept: int) -> None:
    assert rule.choose(S, ENERGY) == kept
    assert rule.dynamic == any(value is not None for value in (rule.energy, rule.fro, rule.ratio, rule.cumulative))


def test_rules_count_what_the_decomposition_left_out() -> None:
    assert RankRule(energy=0.5).choose(S, 4 * ENERGY) == 5
    assert RankRule(cumulative=0.4).choose(S, ENERGY, total=20.0) == 3
    assert RankRule(energy=0.9).choose(torch.zeros(3), 0.0) == 1
    with pytest.raises(ValueError, match="energy and ratio are two rules for one rank"):
        RankRule(energy=0.5, ratio=2)


def test_the_sum_of_singular_values() -> None:
    a = matrix(60, 90)
    assert lowrank.nuclear_norm(a) == pytest.approx(float(torch.linalg.svdvals(a).sum()), rel=1e-5)
    assert lowrank.nuclear_norm(a.mT) == pytest.approx(lowrank.nuclear_norm(a), rel=1e-6)
