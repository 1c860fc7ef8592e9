from __future__ import annotations

import torch
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.core.guidance import guided


class Linear:
    """Answers x + mean of its tokens + t / 1000, and counts its calls and rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        self.rows.append(len(x_t))
        told = conditioning.tokens.mean(dim=(1, 2)) + t / 1000
        return x_t + told[:, None, None, None]


def told(*values: float, length: int = 77) -> Conditioning:
    return Conditioning(torch.tensor(values)[:, None, None].expand(-1, length, 5).clone())


X = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
T = torch.tensor([500, 500])


def shift(out: Tensor) -> list[float]:
    return [round(float(v), 4) for v in (out - X).mean(dim=(1, 2, 3))]


def test_guidance_goes_from_without_to_with() -> None:
    model = Linear()
    out = guided(model, X, T, [(told(2.0, 4.0), 1.0)], told(1.0, 1.0), 3.0)
    assert shift(out) == [0.5 + 1 + 3 * 1, 0.5 + 1 + 3 * 3]
    assert model.rows == [4]  # both in one call


def test_several_weighted_prompts() -> None:
    out = guided(Linear(), X, T, [(told(2.0, 2.0), 0.5), (told(5.0, 0.0), -1.0)], told(1.0, 1.0), 2.0)
    assert shift(out) == [0.5 + 1 + 2 * (0.5 - 4), 0.5 + 1 + 2 * (0.5 + 1)]


def test_scale_1_needs_one_row_each_but_not_with_a_weight() -> None:
    model = Linear()
    assert shift(guided(model, X, T, [(told(2.0, 4.0), 1.0)], told(9.0, 9.0), 1.0)) == [2.5, 4.5]
    assert model.rows == [2]
    assert shift(guided(model, X, T, [(told(2.0, 4.0), 0.5)], told(0.0, 0.0), 1.0)) == [1.5, 2.5]
    assert model.rows == [2, 4]


def test_prompts_of_different_length_are_padded_with_their_last_vector() -> None:
    long = told(2.0, 2.0, length=154)
    out = guided(Linear(), X, T, [(long, 1.0)], told(1.0, 1.0), 2.0)
    assert shift(out) == [0.5 + 1 + 2, 0.5 + 1 + 2]
