"""Sources of noise: NVIDIA's numbers, one source per picture, ENSD, variations, other sizes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from maquette.core.denoiser import Conditioning
from maquette.errors import MaquetteError
from maquette.sampling.brownian import BrownianMotion, BrownianNoise, cpu_randn
from maquette.sampling.loop import SamplingOptions, sample
from maquette.sampling.noise import ImageNoise, NoiseOptions, slerp
from maquette.sampling.philox import Philox, philox_4x32
from maquette.sampling.samplers import SAMPLERS

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of Random123, for 10 rounds
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_words(counter: str, key: str, expected: str) -> None:
    words = tuple(np.array([int(word, 16)], dtype=np.uint64) for word in counter.split())
    keys = [int(word, 16) for word in key.split()]
    found = philox_4x32(words, (keys[0], keys[1]))  # type: ignore[arg-type]
    assert [int(word[0]) for word in found] == [int(word, 16) for word in expected.split()]


def test_numbers_of_nvidias_cards() -> None:
    """torch.randn(3, 4, device="cuda") after torch.manual_seed(0)."""
    expected = [
        [-0.92466259, -0.42534415, -2.6438457, 0.14518388],
        [-0.12086647, -0.57972564, -0.62285122, -0.32838709],
        [-1.07454231, -0.36314407, -1.67105067, 2.26550497],
    ]
    source = Philox(0)
    assert torch.allclose(source.randn((3, 4)), torch.tensor(expected), atol=1e-6)
    assert not torch.allclose(source.randn((3, 4)), torch.tensor(expected), atol=0.1)  # the next call goes on
    assert torch.equal(Philox(2**32 + 5).randn((7,)), Philox(2**32 + 5).randn((7,)))
    assert not torch.equal(Philox(2**32 + 5).randn((7,)), Philox(5).randn((7,)))
    many = Philox(3).randn((100_000,))
    assert abs(float(many.mean())) < 0.01 and abs(float(many.std()) - 1) < 0.01


def noise_of(seeds: list[int], shape: tuple[int, int, int] = (4, 6, 8), **options: Any) -> ImageNoise:
    return ImageNoise(seeds, shape, CPU, NoiseOptions(**options))


@pytest.mark.parametrize("source", ["CPU", "NV"])
def test_each_picture_has_its_own(source: str) -> None:
    batch, single = noise_of([1, 2, 3], source=source), noise_of([2], source=source)
    assert torch.equal(batch.first()[1], single.first()[0])
    assert torch.equal(batch.next()[1], single.next()[0])


def test_the_cards_own_noise_needs_a_card() -> None:
    with pytest.raises(MaquetteError, match=r'graphics card itself needs one; "NV" gives the same numbers'):
        noise_of([1], source="GPU")


def test_ensd_changes_what_follows_the_first() -> None:
    plain, other = noise_of([7]), noise_of([7], ensd=31337)
    assert torch.equal(plain.first(), other.first())
    assert torch.equal(other.next()[0], cpu_randn(7 + 31337, (4, 6, 8)))
    assert not torch.equal(plain.next(), cpu_randn(7 + 31337, (4, 6, 8))[None])


def test_variations() -> None:
    a, b = cpu_randn(7, (4, 6, 8)), cpu_randn(100, (4, 6, 8))
    none, all_of_it = (noise_of([7, 7], variation_seed=100, variation_strength=s).first() for s in (0.0, 1.0))
    assert torch.equal(none[0], a)
    assert torch.allclose(all_of_it[0], b, atol=1e-5)
    half = noise_of([7, 7], variation_seed=100, variation_strength=0.5).first()
    assert torch.allclose(half[0], slerp(0.5, a, b))
    assert torch.allclose(half[1], slerp(0.5, a, cpu_randn(101, (4, 6, 8))))
    assert float(slerp(0.5, torch.randn(4, 64, 64), torch.randn(4, 64, 64)).std()) == pytest.approx(1.0, abs=0.03)
    assert torch.allclose(slerp(0.3, a, a), a)


def test_noise_of_another_size() -> None:
    small = cpu_randn(7, (4, 2, 4))
    larger = noise_of([7], resize_from=(4, 2)).first()[0]
    assert torch.equal(larger[:, 2:4, 2:6], small)
    around = cpu_randn(7, (4, 6, 8))
    assert torch.equal(larger[:, 0], around[:, 0]) and torch.equal(larger[:, 2:4, :2], around[:, 2:4, :2])
    cut = noise_of([7], (4, 2, 4), resize_from=(8, 6)).first()[0]
    assert torch.equal(cut, cpu_randn(7, (4, 6, 8))[:, 2:4, 2:6])


def test_the_motion_does_not_depend_on_what_is_asked() -> None:
    first, second = (BrownianMotion(0.03, 14.6, (4, 8, 8), 11) for _ in range(2))
    first.at(3.3), first.at(0.7)
    assert torch.equal(first.at(1.9), second.at(1.9))
    assert torch.equal(first.at(0.03), torch.zeros(4, 8, 8)) and torch.equal(first.at(14.6), first.whole)
    assert torch.equal(first.at(99.0), first.whole)


def test_the_motion_is_white_at_unit_deviation() -> None:
    noise = BrownianNoise([14.6, 6.0, 2.0, 0.5, 0.0], (4, 100, 100), [3, 4], CPU, cpu_randn)
    steps = [noise(14.6, 6.0), noise(6.0, 2.0), noise(2.0, 0.5)]
    for step in steps:
        assert step.shape == (2, 4, 100, 100)
        assert float(step.std()) == pytest.approx(1.0, abs=0.02)
    table = torch.corrcoef(torch.stack([step[0].flatten() for step in steps]))
    assert float((table - torch.eye(3)).abs().max()) < 0.03
    both = (8.6**0.5 * steps[0] + 4.0**0.5 * steps[1]) / 12.6**0.5
    assert torch.allclose(both, noise(14.6, 2.0), atol=1e-5)


class Waves:
    """A base whose network works on each number by itself, so that a batch can be equal to the bit."""

    spec = SimpleNamespace(latent_factor=8, latent_channels=4, size_multiple=8, name="sd1")
    device = CPU
    scheduler_config: dict[str, Any] = {  # noqa: RUF012
        "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading",
        "steps_offset": 1,
    }  # fmt: skip

    def predict(self, x_t: Tensor, t: Tensor, conditioning: Conditioning) -> Tensor:
        return torch.sin(x_t + t.reshape(-1, 1, 1, 1) / 300) * 0.8


@pytest.mark.parametrize("source", ["CPU", "NV"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_batch_equals_its_pictures_to_the_bit(sampler: str, source: Any) -> None:
    options = SamplingOptions(eta=0.6, s_churn=2.0, noise=NoiseOptions(source=source, ensd=5))

    def drawn(seeds: list[int]) -> Tensor:
        told = Conditioning(torch.zeros(len(seeds), 77, 8))
        return sample(
            Waves(), told, told, sampler=sampler, steps=7, cfg_scale=3.0, seeds=seeds, width=24, height=16,  # type: ignore[arg-type]
            options=options,
        )  # fmt: skip

    batch = drawn([5, 6, 7, 8])
    for place, seed in enumerate([5, 6, 7, 8]):
        assert torch.equal(batch[place], drawn([seed])[0])
    assert len({row.numpy().tobytes() for row in batch}) == 4
