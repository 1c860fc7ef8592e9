"""The formulas of blends against numpy and scipy in float64, written anew from the papers and programs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from maquette.weights import modes
from maquette.weights.modes import MODES, Numbers

SHAPES = [(6,), (5, 7), (4, 3, 3, 3)]
ALPHA, BETA = 0.3, 0.2
Array = np.ndarray[Any, Any]


def three(shape: tuple[int, ...]) -> list[Array]:
    random = np.random.default_rng(1)
    a = random.normal(size=shape)
    return [a, a + 0.3 * random.normal(size=shape), a + 0.2 * random.normal(size=shape)]


def cosine_columns(a: Array, b: Array) -> Array:
    return (a * b).sum(0) / np.sqrt((a * a).sum(0) * (b * b).sum(0))


def by_similarity(a: Array, b: Array, s: Array | float) -> Array:
    k = np.clip(s - ALPHA, 0, 1)
    return a * k + b * (1 - k)


def slerp(a: Array, b: Array) -> Array:
    long_a, long_b = np.linalg.norm(a), np.linalg.norm(b)
    angle = math.acos((a * b).sum() / long_a / long_b)
    middle = (a / long_a * math.sin((1 - ALPHA) * angle) + b / long_b * math.sin(ALPHA * angle)) / math.sin(angle)
    return middle * (long_a * (1 - ALPHA) + long_b * ALPHA)


def ties(a: Array, b: Array, c: Array) -> Array:
    trimmed = []
    for change in (a - c, b - c):
        kept = round(0.5 * change.size)
        order = np.argsort(-np.abs(change).ravel())[:kept]
        only = np.zeros(change.size)
        only[order] = change.ravel()[order]
        trimmed.append(only.reshape(change.shape))
    result = c.copy()
    for place in np.ndindex(c.shape):
        values = [(share, change[place]) for share, change in zip((1 - ALPHA, ALPHA), trimmed, strict=True)]
        elected = np.sign(sum(share * value for share, value in values))
        agreeing = [(share, value) for share, value in values if np.sign(value) == elected != 0]
        if agreeing:
            result[place] += sum(s * v for s, v in agreeing) / sum(s for s, _ in agreeing)
    return result


def geometric(a: Array, b: Array) -> Array:
    return (a.astype(complex) ** (1 - ALPHA) * b.astype(complex) ** ALPHA).real


ORACLES: dict[str, Callable[..., Array]] = {
    "weighted-sum": lambda a, b: (1 - ALPHA) * a + ALPHA * b,
    "add-difference": lambda a, b, c: a + ALPHA * (b - c),
    "triple-sum": lambda a, b, c: (1 - ALPHA - BETA) * a + ALPHA * b + BETA * c,
    "sum-twice": lambda a, b, c: (1 - BETA) * ((1 - ALPHA) * a + ALPHA * b) + BETA * c,
    "train-difference": lambda a, b, c: a + 1.8 * ALPHA * (b - c) * abs(b - a) / (abs(b - a) + abs(b - c)),
    "smooth-add": lambda a, b, c: a + ALPHA * ndimage.gaussian_filter(ndimage.median_filter(b - c, size=3), sigma=1),
    "cosine-a": lambda a, b: by_similarity(a, b, cosine_columns(a, b)),  # a column's length does not change its cosine
    "cosine-b": lambda a, b: by_similarity(
        a, b, (cosine_columns(a, b) + (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)) / 2
    ),
    "slerp": slerp,
    "ties": ties,
    "geometric": geometric,
    "median": lambda a, b, c: (1 - ALPHA) * a + ALPHA * np.median([a, b, c], axis=0),
    "clamp": lambda a, b, c: (1 - ALPHA) * a + ALPHA * np.clip(a, np.minimum(b, c), np.maximum(b, c)),
}


def run(mode: str, arrays: list[Array], dtype: torch.dtype, **settings: Any) -> Array:
    tensors = [torch.tensor(array, dtype=dtype) for array in arrays[: MODES[mode].models]]
    before = [tensor.clone() for tensor in tensors]
    beta = BETA if mode in ("triple-sum", "sum-twice") else 0.0
    result = MODES[mode].formula(tensors, Numbers(settings.pop("alpha", ALPHA), beta, **settings))
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, before, strict=True))  # inputs stay
    assert result.dtype == dtype
    return result.double().numpy()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", sorted(ORACLES))
def test_formulas(mode: str, shape: tuple[int, ...]) -> None:
    arrays = three(shape)
    expected = ORACLES[mode](*arrays[: MODES[mode].models])
    np.testing.assert_allclose(run(mode, arrays, torch.float64), expected, atol=1e-12)
    np.testing.assert_allclose(run(mode, arrays, torch.float32), expected, atol=2e-6)


def test_every_mode_has_an_oracle_or_a_test_of_its_own() -> None:
    assert MODES.keys() - ORACLES.keys() == {"dare", "della"}


@pytest.mark.parametrize("mode", sorted(name for name, mode in MODES.items() if mode.still))
def test_nothing_of_the_others_gives_a(mode: str) -> None:
    arrays = three((5, 7))
    beta = (
        MODES[mode].formula([torch.tensor(array) for array in arrays[: MODES[mode].models]], Numbers(0.0, 0.0)).numpy()
    )
    np.testing.assert_allclose(beta, arrays[0], atol=1e-15)


@pytest.mark.parametrize("mode", ["dare", "della"])
def test_thinned_changes(mode: str) -> None:
    """Each number of a change is 0 or divided by its chance to stay; on average nothing changes."""
    random = np.random.default_rng(2)
    c = random.normal(size=(40, 500))
    a, b = c + random.normal(size=c.shape), c + random.normal(size=c.shape)
    first = run(mode, [a, b, c], torch.float64, alpha=0.0, density=0.4, spread=0.1) - c
    kept = first != 0
    assert abs(kept.mean() - 0.4) < 0.02
    chance = (a - c)[kept] / first[kept]
    if mode == "dare":
        np.testing.assert_allclose(chance, 0.4)
        assert abs((first - (a - c)).mean()) < 0.03
    else:  # larger numbers stay more often: their ranks in the row go from 0.3 to 0.5
        ranks = np.abs(a - c).argsort(1).argsort(1)[kept] / 499
        np.testing.assert_allclose(chance, 0.3 + 0.2 * ranks)
        large = np.abs(a - c) > 1
        assert kept[large].mean() > kept[~large].mean() + 0.05
    again = run(mode, [a, b, c], torch.float64, alpha=0.0, density=0.4, spread=0.1) - c
    np.testing.assert_array_equal(first, again)
    mixed = run(mode, [a, b, c], torch.float64, density=1.0, spread=0.0) - c
    if mode == "dare":
        np.testing.assert_allclose(mixed, (1 - ALPHA) * (a - c) + ALPHA * (b - c), atol=1e-12)


def test_parallel_vectors_have_no_angle() -> None:
    a = torch.tensor([1.0, 2.0])
    assert torch.allclose(modes.slerp([a, 3 * a], Numbers(0.5)), 2 * a)
    assert torch.equal(modes.slerp([a, torch.zeros(2)], Numbers(0.5)), a / 2)


def test_where_nothing_differs_the_trained_difference_is_nothing() -> None:
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(modes.train_difference([a, a, a], Numbers(1.0)), a)
