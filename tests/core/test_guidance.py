from __future__ import annotations

import torch
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.core.guidance import guided, guided_and_negative, rescaled


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


class Attending:
    """Answers the mean of what it is told: repeating the last vector changes that, as it changes attention."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        self.lengths.append(conditioning.tokens.shape[1])
        return 0 * x_t + conditioning.tokens.mean(dim=(1, 2))[:, None, None, None]


def ramp(length: int) -> Conditioning:
    return Conditioning(torch.arange(float(length))[None, :, None].expand(2, -1, 5).clone())


def test_a_negative_prompt_of_another_length_is_computed_at_its_own() -> None:
    """As in A1111, and in two calls; at the same length in one."""
    for positive, negative in ((154, 77), (77, 154)):
        model = Attending()
        out = guided(model, X, T, [(ramp(positive), 1.0)], ramp(negative), 2.0)
        means = [(length - 1) / 2 for length in (positive, negative)]
        assert torch.allclose(out, torch.tensor(means[1] + 2 * (means[0] - means[1])))
        assert model.lengths == [positive, negative]
    model = Attending()
    guided(model, X, T, [(ramp(77), 1.0)], ramp(77), 2.0)
    assert model.lengths == [77]


def test_parts_of_one_prompt_are_padded_with_their_last_vector() -> None:
    model = Attending()
    out = guided(model, X, T, [(ramp(154), 1.0), (ramp(77), 1.0)], ramp(77), 1.0)
    padded = (sum(range(77)) + 77 * 76) / 154
    assert torch.allclose(out, torch.tensor(38 + (76.5 - 38) + (padded - 38)))
    assert model.lengths == [154, 77]


def test_rescaling_as_diffusers() -> None:
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    positive, negative = (torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    strong = negative + 7 * (positive - negative)
    assert torch.allclose(rescaled(strong, positive, 0.7), rescale_noise_cfg(strong, positive, 0.7), atol=1e-5)
    assert torch.allclose(rescaled(strong, positive, 1.0).std(dim=(1, 2, 3)), positive.std(dim=(1, 2, 3)))


def test_a_rescaled_guidance_keeps_the_negative_prompts_own_answer() -> None:
    plain, negative = guided_and_negative(Linear(), X, T, [(told(2.0, 4.0), 1.0)], told(1.0, 1.0), 3.0)
    out, same = guided_and_negative(Linear(), X, T, [(told(2.0, 4.0), 1.0)], told(1.0, 1.0), 3.0, rescale=0.5)
    assert negative is not None and same is not None and torch.equal(negative, same)
    assert shift(same) == [1.5, 1.5]
    assert torch.allclose(out, rescaled(plain, X + torch.tensor([2.5, 4.5])[:, None, None, None], 0.5), atol=1e-5)
    alone, none = guided_and_negative(Linear(), X, T, [(told(2.0, 4.0), 1.0)], told(1.0, 1.0), 1.0, rescale=0.5)
    assert none is None and shift(alone) == [2.5, 4.5]
