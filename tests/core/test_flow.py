"""The rectified flow: its maths, and that the trainer's and the sampler's conventions agree."""

from __future__ import annotations

import pytest
import torch

from maquette.core.flow import RectifiedFlow, shifted
from maquette.core.noise import NoiseSchedule, noise_process

X0 = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
NOISE = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1))
T = torch.tensor([1.0, 400.0, 1000.0])


def test_a_latent_lies_on_the_line_between_picture_and_noise() -> None:
    x_t = RectifiedFlow().add_noise(X0, NOISE, T)
    assert torch.allclose(x_t[1], 0.6 * X0[1] + 0.4 * NOISE[1], atol=1e-6)
    assert torch.equal(x_t[2], NOISE[2])


def test_the_target_is_the_derivative_of_the_line() -> None:
    flow, step = RectifiedFlow(), 0.5
    before, after = flow.add_noise(X0, NOISE, T - step), flow.add_noise(X0, NOISE, T + step)
    slope = (after - before) / (2 * step / 1000)
    assert torch.allclose(slope, flow.target(X0, NOISE, T), atol=1e-3)


def test_picture_and_noise_come_back_from_the_velocity() -> None:
    flow = RectifiedFlow()
    x_t, u = flow.add_noise(X0, NOISE, T), flow.target(X0, NOISE, T)
    assert torch.allclose(flow.x0(u, x_t, T), X0, atol=1e-5)
    assert torch.allclose(flow.eps(u, x_t, T), NOISE, atol=1e-5)


def test_signal_to_noise() -> None:
    assert torch.allclose(RectifiedFlow().snr(torch.tensor([200.0, 500.0, 1000.0])), torch.tensor([16.0, 1.0, 0.0]))


def test_the_shift_divides_the_ratio_of_signal_to_noise() -> None:
    """Resolution s times higher: the same noise leaves s times less of the picture (arXiv 2403.03206, eq. 23)."""
    u = torch.tensor([0.1, 0.5, 0.9])
    moved = shifted(u, 3.0)
    assert torch.allclose((1 - moved) / moved, (1 - u) / u / 3.0)
    assert torch.equal(shifted(u, 1.0), u)


@pytest.mark.parametrize("sampling", ["uniform", "logit-normal"])
def test_timesteps_are_within_their_bounds(sampling: str) -> None:
    def drawn(shift: float) -> torch.Tensor:
        random = torch.Generator().manual_seed(0)
        return RectifiedFlow(shift).sample_timesteps(4000, random, 200, 800, sampling)  # type: ignore[arg-type]

    assert drawn(1.0).min() >= 200 and drawn(1.0).max() <= 800
    assert abs(float(drawn(1.0).mean()) - 500) < 10
    assert float(drawn(3.0).mean()) > 600


def test_the_process_follows_from_the_scheduler() -> None:
    assert noise_process({"prediction_type": "flow", "shift": 2.0}) == RectifiedFlow(2.0)
    assert noise_process({"prediction_type": "flow", "shift": 2.0}, shift=1.5) == RectifiedFlow(1.5)
    assert isinstance(noise_process({"prediction_type": "v_prediction"}), NoiseSchedule)
