"""Drawing with a base that predicts flow: against the exact path of Gaussian data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.core.flow import RectifiedFlow
from maquette.errors import MaquetteError
from maquette.sampling.denoiser import GuidedDenoiser
from maquette.sampling.levels import NoiseLevels
from maquette.sampling.samplers import SAMPLERS, kind_of, suited

FLOW = {"prediction_type": "flow", "shift": 2.0}
SPREAD = 0.8
START = torch.linspace(-2, 2, 24, dtype=torch.float64).reshape(1, 4, 2, 3)


class GaussianFlow:
    """Predicts the velocity E[n - x0 | x] of data from a normal distribution of deviation `SPREAD`."""

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        sigma = (t.double() / 1000).reshape(-1, 1, 1, 1)
        variance = ((1 - sigma) * SPREAD) ** 2 + sigma**2
        x0 = (1 - sigma) * SPREAD**2 * x_t / variance
        return (x_t - x0) / sigma


def drawn(sampler: str, steps: int) -> Tensor:
    name = suited(sampler, FLOW)
    levels = NoiseLevels.from_config(FLOW)
    way = kind_of(name).steps("Normal", steps, levels)
    denoiser = GuidedDenoiser(GaussianFlow(), levels, Conditioning(torch.zeros(1, 77, 8)), None, 1.0)
    return kind_of(name).run(denoiser, START * way.sigmas[0], way.sigmas)


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.flow])
def test_the_path_ends_in_the_data(sampler: str) -> None:
    assert torch.allclose(drawn(sampler, 200), SPREAD * START, atol=0.02)


def test_euler_is_of_first_order_and_heun_better() -> None:
    def error(sampler: str, steps: int) -> float:
        return float((drawn(sampler, steps) - SPREAD * START).abs().max())

    assert 1.6 < error("Euler", 40) / error("Euler", 80) < 2.5
    assert error("Heun", 40) < error("Euler", 40) / 3


def test_ddim_is_eulers_method_on_a_flow() -> None:
    assert suited("DDIM", FLOW) == "Euler Normal"
    assert torch.equal(drawn("DDIM", 10), drawn("Euler", 10))


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "UniPC", "PLMS", "LCM"])
def test_samplers_that_do_not_fit_are_refused(sampler: str) -> None:
    with pytest.raises(MaquetteError, match="does not fit a base that predicts flow; these do: Euler, Heun"):
        suited(sampler, FLOW)
    assert suited(sampler, {"prediction_type": "epsilon"}) == sampler


def test_trainer_and_sampler_tell_the_network_the_same_time() -> None:
    """A latent noised by the trainer at t is one that the sampler would give the network with the same t."""
    levels, flow = NoiseLevels.from_config(FLOW), RectifiedFlow()
    x0, noise = torch.randn(1, 4, 2, 2), torch.randn(1, 4, 2, 2)
    sigma = levels.sigmas[400]
    t = torch.tensor([levels.time(sigma)])
    assert torch.allclose(flow.add_noise(x0, noise, t), levels.noised(x0, noise, sigma), atol=1e-6)
    assert levels.time(levels.sigma_max) == 1000.0
