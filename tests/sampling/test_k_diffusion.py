"""Against the k-diffusion package: its outputs on the same levels and noise, recorded by record_k_diffusion.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from analytic import beginning, fixed_noise, two_peaks
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.sampling import samplers_ode, samplers_sde
from maquette.sampling.brownian import BrownianMotion
from maquette.sampling.denoiser import GuidedDenoiser
from maquette.sampling.levels import NoiseLevels
from maquette.sampling.schedules import SCHEDULES

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "k_diffusion.json").read_text())
SD1 = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "set_alpha_to_one": False}


@pytest.mark.parametrize("vector", VECTORS["samplers"], ids=lambda v: f"{v['sampler']}, {v['case']}")
def test_samplers(vector: dict[str, Any]) -> None:
    name, options = vector["sampler"], dict(vector["options"])
    sampler = getattr(samplers_ode, name, None) or getattr(samplers_sde, name)
    noise = fixed_noise()
    if "s_churn" in options:  # there any white noise, which knows no levels
        options["noise"] = lambda sigma, sigma_next: noise(0.0, 0.0)
    elif not hasattr(samplers_ode, name):
        options["noise"] = noise
    x = sampler(two_peaks, beginning(vector["sigmas"][0]), vector["sigmas"], **options)
    assert torch.allclose(x.flatten(), torch.tensor(vector["x"], dtype=torch.float64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VECTORS["schedules"])
def test_schedules(name: str) -> None:
    levels = NoiseLevels.from_config(SD1)
    for expected in VECTORS["schedules"][name]:
        assert SCHEDULES[name](len(expected) - 1, levels) == pytest.approx(expected, rel=1e-5)


class Waves:
    """The network of the recording."""

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return torch.sin(x_t * 3 + t.reshape(-1, 1, 1, 1) / 100)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda v: f"{v['sigma']:.3g}")
def test_what_the_networks_answer_stands_for(vector: dict[str, Any], prediction: str) -> None:
    levels = NoiseLevels.from_config(SD1 | {"prediction_type": prediction})
    assert levels.time(vector["sigma"]) == pytest.approx(vector["t"], abs=1e-2)  # theirs is computed in float32
    denoiser = GuidedDenoiser(Waves(), levels, Conditioning(torch.zeros(1, 77, 8)), None, 1.0)
    x0 = denoiser(beginning(1.0).float()[:1], vector["sigma"])
    scale = max(1.0, vector["sigma"])
    assert torch.allclose(x0.flatten(), torch.tensor(vector[prediction]), rtol=1e-5, atol=1e-4 * scale)


@pytest.mark.parametrize("vector", VECTORS["brownian"], ids=lambda v: f"{v['from']} to {v['to']}")
def test_the_brownian_motion_is_torchsdes(vector: dict[str, Any]) -> None:
    motion = BrownianMotion(0.03, 14.5, (4, 2, 2), 12345)
    assert torch.allclose(
        (motion.at(vector["to"]) - motion.at(vector["from"])).flatten(), torch.tensor(vector["w"]), atol=3e-6
    )
