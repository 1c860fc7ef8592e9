from __future__ import annotations

from typing import Any

import pytest
import torch

from maquette import families
from maquette.core.denoiser import Conditioning
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.fast import packed
from maquette.sampling.levels import NoiseLevels
from maquette.sampling.loop import SamplingOptions, sample
from maquette.sampling.samplers import SAMPLERS, find_sampler, image_steps, schedule_notice, schedule_of
from maquette.sampling.schedules import SCHEDULES
from tests.families import tiny


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


class Known:
    """A denoiser that knows the answer: the clean latent is `truth`, whatever the noise."""

    def __init__(self, base: BaseModel, truth: torch.Tensor) -> None:
        self.levels = NoiseLevels.from_config(base.scheduler_config)
        self.truth = truth

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        sigma = self.levels.t_to_sigma(float(t[0]))  # Karras levels fall between timesteps
        abar = torch.tensor(1 / (sigma**2 + 1))
        x0 = self.truth.expand(len(x_t), -1, -1, -1)
        noise = (x_t - abar.sqrt() * x0) / (1 - abar).sqrt()
        return abar.sqrt() * noise - (1 - abar).sqrt() * x0


def drawn(base: BaseModel, **options: Any) -> torch.Tensor:
    count, kept = len(options["seeds"]), vars(base).setdefault("texts of these tests", {})
    if count not in kept:
        with torch.no_grad():
            kept[count] = [base.encode_text([text] * count) for text in ("a photo of a cat", "")]
    cond, uncond = kept[count]
    return sample(base, cond, uncond, **{"steps": 6, "cfg_scale": 4.0, "width": 64, "height": 64, **options})


# A schedule changes nothing for those that step through a base's timesteps.
WITH_SCHEDULES = [name for name, kind in SAMPLERS.items() if not kind.by_timesteps]
EVERY = [*SAMPLERS, *(f"{name} {schedule}" for name in WITH_SCHEDULES for schedule in SCHEDULES)]


@pytest.mark.parametrize("sampler", EVERY)
def test_every_sampler_arrives_at_what_the_denoiser_knows(
    base: BaseModel, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr(base, "predict", Known(base, truth).predict)
    latents = drawn(base, sampler=sampler, seeds=[1, 2], steps=20)
    assert latents.shape == (2, 4, 16, 16)
    left = 0.12 if sampler == "LCM KL Optimal" else 0.06  # noise of a last level that is not 0; LCM's is 0.14
    assert (latents - truth).abs().mean() < left


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_equals_singles(base: BaseModel, sampler: str) -> None:
    """To the bit where pictures are computed one by one, otherwise but for rounding."""
    singly = SamplingOptions(one_by_one=True)
    batch = drawn(base, sampler=sampler, seeds=[1, 2, 3, 4], steps=3, options=singly)
    singles = {seed: drawn(base, sampler=sampler, seeds=[seed], steps=3)[0] for seed in (2, 4)}
    assert all(torch.equal(batch[seed - 1], single) for seed, single in singles.items())
    assert not torch.allclose(batch[0], batch[1], atol=0.1)
    at_once = drawn(base, sampler=sampler, seeds=[1, 2], steps=3)
    assert torch.allclose(at_once[1], singles[2], atol=1e-4)


@pytest.fixture(scope="module", params=["pocket", "narrow", "packed"])
def any_base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    if request.param == "narrow":
        tiny.write_folder(folder := tmp_path_factory.mktemp("narrow") / "sd1", "sd1")
        return families.load(folder)
    found = families.load("pocket")
    if request.param == "packed":
        assert packed.install(found.unet) > 0
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_equals_singles_with_any_network_and_threads(any_base: BaseModel, threads: int) -> None:
    usual, singly = torch.get_num_threads(), SamplingOptions(one_by_one=True, cfg_rescale=0.7)
    torch.set_num_threads(threads)
    try:
        batch = drawn(any_base, sampler="DPM++ 2M SDE", seeds=[1, 2, 3, 4], steps=2, options=singly)
        for i, seed in enumerate([1, 2, 3, 4]):
            single = drawn(any_base, sampler="DPM++ 2M SDE", seeds=[seed], steps=2, options=singly)
            assert torch.equal(batch[i], single[0])
    finally:
        torch.set_num_threads(usual)


def test_names(base: BaseModel) -> None:
    assert find_sampler("euler A") == "Euler a"
    with pytest.raises(MaquetteError, match=r"'Eular'.*Did you mean 'Euler'.*DDIM, .*UniPC"):
        find_sampler("Eular")


@pytest.mark.parametrize(("width", "height"), [(48, 80), (72, 64), (64, 40), (56, 104), (16, 24)])
def test_sizes_that_the_unet_cannot_halve(base: BaseModel, width: int, height: int) -> None:
    """Multiples of 8, as A1111 offers: latents of odd sides are halved up and cut back."""
    latents = drawn(base, sampler="DDIM", seeds=[1], steps=1, width=width, height=height)
    assert latents.shape == (1, 4, height // 4, width // 4)
    assert base.decode(latents).shape == (1, 3, height, width)


def test_sizes_that_are_no_whole_cells(base: BaseModel) -> None:
    with pytest.raises(MaquetteError, match=r"70 x 64 is not possible: .* multiples of 4"):
        drawn(base, sampler="DDIM", seeds=[1], steps=1, width=70)


def test_names_and_schedules() -> None:
    assert find_sampler("dpm++  2m sde KARRAS") == "DPM++ 2M SDE Karras"
    assert find_sampler("DPM++ 2M", "karras") == find_sampler("DPM++ 2M Karras", "Karras") == "DPM++ 2M Karras"
    assert find_sampler("Euler Automatic") == "Euler"
    assert schedule_of("DPM++ 2M") == schedule_of("DPM++ 2M Karras") == ("DPM++ 2M", "Karras")  # since A1111 1.9
    assert schedule_of("DPM++ 2M SDE") == ("DPM++ 2M SDE", "Exponential")
    assert schedule_of("DPM2 Uniform") == ("DPM2", "Uniform")
    assert schedule_of("Euler") == ("Euler", "Automatic")
    assert schedule_of("dpm++ 3m sde exponential") == ("DPM++ 3M SDE", "Exponential")
    assert schedule_of("DPM++ 2M SDE Heun Karras") == ("DPM++ 2M SDE Heun", "Karras")
    assert schedule_of("DPM2 a Karras") == ("DPM2 a", "Karras")
    assert schedule_of("DDIM") == ("DDIM", "Automatic") and schedule_of("DDIM DDIM") == ("DDIM", "DDIM")
    assert find_sampler("Euler a", "align your steps") == "Euler a Align Your Steps"
    with pytest.raises(MaquetteError, match=r"Karras in its name, and Uniform was asked for"):
        find_sampler("Euler Karras", "Uniform")
    with pytest.raises(MaquetteError, match=r"no schedule type 'Linear'; give Automatic, Uniform, Karras, .*Turbo"):
        find_sampler("Euler", "Linear")
    with pytest.raises(MaquetteError, match=r"Did you mean 'DPM\+\+ 2M Karras'"):
        find_sampler("DPM++ 2M Karas")


def test_a_schedule_without_effect_is_said() -> None:
    assert schedule_notice("DDIM Karras") == (
        "DDIM steps through the base's own timesteps, here as in A1111: the schedule Karras has no effect."
    )
    assert schedule_notice("DDIM") is schedule_notice("Euler Karras") is None


@pytest.mark.parametrize(
    ("steps", "strength", "calls"),
    [(10, 0.05, (1, 0)), (10, 0.3, (4, 3)), (20, 0.75, (16, 15)), (30, 0.55, (17, 16)), (9, 1, (9, 8)), (9, 0, (0, 0))],
)
def test_steps_of_image_to_image(steps: int, strength: float, calls: tuple[int, int]) -> None:
    """As A1111 1.10 counts them."""
    assert (image_steps("Euler", steps, strength), image_steps("DDIM", steps, strength)) == calls
    assert image_steps("DPM++ 2M Karras", steps, strength) == calls[0]
    assert image_steps("UniPC", steps, strength) == calls[1]


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
    little = moved(0.3)
    assert len(calls) == {"DDIM": 3, "Heun": 7, "DPM++ 2M Karras": 4}[sampler]
    much = moved(1.0)
    assert 0 < little < much
    assert calls[-1][0] == calls[-1][1] == {"DDIM": 9, "Heun": 19, "DPM++ 2M Karras": 10}[sampler]
