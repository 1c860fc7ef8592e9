"""Blends as sd-mecha and mergekit make them. The second is not installed here: what it made stands in mergekit.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sd_mecha.extensions.builtin.merge_methods import cosine, limiting, linear, ties
from torch import Tensor

from maquette.weights.modes import MODES, Numbers

A = 0.3
SHAPES = [(6,), (5, 7), (4, 3, 3, 3)]


def call(method: object, *tensors: Tensor | float, **rest: object) -> Tensor:
    """What a merge method of sd-mecha does with one tensor of each model."""
    found = method.__wrapped__(*tensors, **rest)  # type: ignore[attr-defined]
    assert isinstance(found, Tensor)
    return found


def keyed(method: object, *tensors: Tensor, alpha: Tensor) -> Tensor:
    return call(method, *({"x": tensor} for tensor in tensors), alpha, key="x")  # type: ignore[arg-type]


ALPHA = torch.tensor(A)
MECHA: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "weighted-sum": lambda a, b, c: keyed(linear.weighted_sum, a, b, alpha=ALPHA),
    "add-difference": lambda a, b, c: keyed(linear.add_difference, a, b - c, alpha=ALPHA),
    "train-difference": lambda a, b, c: a + call(linear.train_difference_mask, a, b, c, ALPHA) * (b - c),
    "cosine-a": lambda a, b, c: call(cosine.add_cosine_a, a, b, ALPHA),
    "cosine-b": lambda a, b, c: call(cosine.add_cosine_b, a, b, ALPHA),
    "slerp": lambda a, b, c: call(linear.slerp, a, b, ALPHA),
    "geometric": lambda a, b, c: call(linear.geometric_sum, a, b, ALPHA),
    "clamp": lambda a, b, c: torch.lerp(a, call(limiting.clamp, a, b, c), A),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", MECHA)
def test_blends_are_those_of_sd_mecha(mode: str, shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(shape, generator=generator)
    b, c = (a + share * torch.randn(shape, generator=generator) for share in (0.3, 0.2))
    made = MODES[mode].formula([a, b, c][: MODES[mode].models], Numbers(A))
    assert torch.allclose(made, MECHA[mode](a, b, c), atol=1e-5)


def test_ties_elects_as_sd_mecha_does_by_size() -> None:
    """At a share of one half, where its mean, which counts, is a weighted one; nothing trimmed, for it keeps a number
    more; with its `vote_sgn`, which elects by the sum, as the paper does. The trim is compared with mergekit's.
    """
    generator = torch.Generator().manual_seed(3)
    a, b, c = (torch.randn(8, 10, generator=generator) for _ in range(3))
    made = MODES["ties"].formula([a, b, c], Numbers(0.5, density=1.0))
    assert torch.allclose(made, c + call(ties.ties_sum, a - c, b - c, k=1.0, vote_sgn=True), atol=1e-5)


VECTORS = json.loads((Path(__file__).parent / "mergekit.json").read_text())
MERGEKIT = ["weighted-sum", "add-difference", "slerp", "ties", "dare", "della"]


@pytest.mark.parametrize("mode", MERGEKIT)
def test_blends_are_those_of_mergekit(mode: str) -> None:
    """linear, task_arithmetic, slerp of two tensors of one length, ties; dare_linear and della where nothing is
    dropped, for what is dropped depends on chance. All with rescale off, ties and della with normalize.
    """
    a, b, c = (torch.tensor(VECTORS[name]).reshape(4, 6) for name in "abc")
    if mode == "slerp":
        b = b * (a.norm() / b.norm())
    density = VECTORS["density"] if mode == "ties" else 1.0
    made = MODES[mode].formula([a, b, c][: MODES[mode].models], Numbers(VECTORS["alpha"], density=density, spread=0.0))
    assert torch.allclose(made.flatten(), torch.tensor(VECTORS[mode]), atol=1e-5)
