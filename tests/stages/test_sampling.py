from __future__ import annotations

from typing import Any

import pytest
import torch

from maquette import families
from maquette.core.denoiser import Conditioning
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.stages.samplers import SAMPLERS, find_sampler, scheduler_for
from maquette.stages.sampling import sample


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


class Known:
    """A denoiser that knows the answer: the clean latent is `truth`, whatever the noise."""

    def __init__(self, base: BaseModel, truth: torch.Tensor) -> None:
        self.abar = scheduler_for("DDIM", base.scheduler_config).alphas_cumprod
        self.truth = truth

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        low = t.double().floor().long()  # Karras schedules fall between timesteps
        high = (low + 1).clamp(max=len(self.abar) - 1)
        log = self.abar.double().log()
        abar = (log[low] + (t.double() - low) * (log[high] - log[low])).exp().float()[:, None, None, None]
        x0 = self.truth.expand(len(x_t), -1, -1, -1)
        noise = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
        return abar.sqrt() * noise - (1 - abar).sqrt() * x0


def drawn(base: BaseModel, **options: Any) -> torch.Tensor:
    with torch.no_grad():
        cond = base.encode_text(["a photo of a cat"] * len(options["seeds"]))
        uncond = base.encode_text([""] * len(options["seeds"]))
    return sample(base, cond, uncond, **{"steps": 6, "cfg_scale": 4.0, "width": 64, "height": 64, **options})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_arrives_at_what_the_denoiser_knows(
    base: BaseModel, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(base, "predict", Known(base, truth).predict)
    latents = drawn(base, sampler=sampler, seeds=[1, 2], steps=20)
    assert latents.shape == (2, 4, 16, 16)
    assert (latents - truth).abs().mean() < 0.06  # the noise left at the last timestep, which is not 0


@pytest.mark.parametrize("sampler", ["DDIM", "Euler a", "DPM2", "DPM++ 2M SDE Karras"])
def test_a_batch_equals_singles(base: BaseModel, sampler: str) -> None:
    batch = drawn(base, sampler=sampler, seeds=[1, 2, 3], steps=3)
    single = drawn(base, sampler=sampler, seeds=[2], steps=3)
    assert torch.allclose(batch[1], single[0], atol=1e-4)
    assert not torch.allclose(batch[0], batch[1], atol=0.1)


def test_schedulers_keep_what_the_base_was_trained_with(base: BaseModel) -> None:
    for name in SAMPLERS:
        config = scheduler_for(name, base.scheduler_config).config
        for key in ("prediction_type", "beta_start", "beta_end", "beta_schedule"):
            assert config[key] == base.scheduler_config[key], (name, key)
        assert config.get("use_karras_sigmas", False) == name.endswith("Karras")


def test_names(base: BaseModel) -> None:
    assert find_sampler("euler A") == "Euler a"
    with pytest.raises(MaquetteError, match=r"'Eular'.*Did you mean 'Euler'.*DDIM, .*UniPC"):
        find_sampler("Eular")


def test_sizes_that_the_unet_cannot_halve(base: BaseModel) -> None:
    assert drawn(base, sampler="DDIM", seeds=[1], steps=1, width=48, height=80).shape == (1, 4, 20, 12)
    with pytest.raises(MaquetteError, match="multiples of 16"):
        drawn(base, sampler="DDIM", seeds=[1], steps=1, width=72)


@pytest.mark.parametrize("sampler", ["DDIM", "Heun", "DPM++ 2M Karras"])
def test_beginning_from_latents(base: BaseModel, sampler: str) -> None:
    start = drawn(base, sampler="DDIM", seeds=[9], steps=6)
    calls: list[tuple[int, int]] = []

    def moved(strength: float) -> float:
        calls.clear()
        options = {"init_latents": start, "denoising_strength": strength, "callback": lambda *c: calls.append(c)}
        return float((drawn(base, sampler=sampler, seeds=[1], steps=10, **options) - start).abs().mean())

    assert moved(0.0) == 0
    assert calls == []
    little, much = moved(0.2), moved(1.0)
    assert 0 < little < much
    assert calls[-1][0] == calls[-1][1] >= 10
