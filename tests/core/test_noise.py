import itertools
import math

import pytest
import torch

from maquette.core import noise as N
from maquette.core.noise import NoiseSchedule
from maquette.errors import MaquetteError


def schedule(abar: list[float], prediction_type: str = "epsilon") -> NoiseSchedule:
    return NoiseSchedule(torch.tensor(abar), prediction_type)  # type: ignore[arg-type]


SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("zero", [False, True])
def test_schedule_is_that_of_diffusers(kind: str, zero: bool) -> None:
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    config = SD | {"beta_schedule": kind, "rescale_betas_zero_snr": zero}
    theirs = DDIMScheduler(**config).alphas_cumprod
    torch.testing.assert_close(NoiseSchedule.from_config(config).alphas_cumprod, theirs, atol=2e-6, rtol=1e-4)


def test_trained_betas_by_hand() -> None:
    made = NoiseSchedule.from_config({"trained_betas": [0.5, 0.5, 0.75]})
    assert made.alphas_cumprod.tolist() == [0.5, 0.25, 0.0625]


def test_zero_terminal_snr_keeps_the_first_and_ends_at_zero() -> None:
    plain = NoiseSchedule.from_config(SD)
    fixed = NoiseSchedule.from_config(SD, zero_terminal_snr=True)
    assert fixed.alphas_cumprod[-1] == 0
    assert fixed.alphas_cumprod[0] == pytest.approx(plain.alphas_cumprod[0].item(), rel=1e-6)


def test_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(MaquetteError, match="The base predicts flow, of which there is no schedule of betas"):
        NoiseSchedule.from_config(SD | {"prediction_type": "flow"})


def test_add_noise_and_targets_by_hand() -> None:
    # abar = 0.36: roots 0.6 and 0.8; x0 = 10, noise = 5 -> x_t = 6 + 4 = 10; v = 0.6*5 - 0.8*10 = -5
    x0, n, t = torch.full((1, 1, 1, 1), 10.0), torch.full((1, 1, 1, 1), 5.0), torch.tensor([0])
    eps, v = schedule([0.36]), schedule([0.36], "v_prediction")
    assert eps.add_noise(x0, n, t).item() == pytest.approx(10.0)
    assert eps.target(x0, n, t).item() == 5.0
    assert v.target(x0, n, t).item() == pytest.approx(-5.0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_x0_and_eps_invert_the_target(prediction_type: str) -> None:
    s = NoiseSchedule.from_config(SD | {"prediction_type": prediction_type})
    x0, n, t = torch.randn(4, 4, 2, 2), torch.randn(4, 4, 2, 2), torch.tensor([0, 300, 700, 999])
    x_t, out = s.add_noise(x0, n, t), s.target(x0, n, t)
    torch.testing.assert_close(s.x0(out, x_t, t), x0, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(s.eps(out, x_t, t), n, atol=1e-4, rtol=1e-4)


def test_min_snr_weights_by_hand() -> None:
    # abar .9 -> snr 9; .5 -> snr 1; 0 -> snr 0
    t = torch.tensor([0, 1, 2])
    eps = schedule([0.9, 0.5, 0.0]).loss_weight(t, 5.0)
    assert eps.tolist() == pytest.approx([5 / 9, 1.0, 1.0], rel=1e-5)
    v = schedule([0.9, 0.5, 0.0], "v_prediction").loss_weight(t, 5.0)
    assert v.tolist() == pytest.approx([5 / 10, 1 / 2, 1 / 2], rel=1e-5)  # no signal counts as the least there is
    assert schedule([0.9]).loss_weight(torch.tensor([0])).tolist() == [1.0]


def test_debiased_weights_by_hand() -> None:
    t = torch.tensor([0, 1])
    assert schedule([0.9, 0.5]).loss_weight(t, debiased=True).tolist() == pytest.approx([1 / 3, 1.0], rel=1e-5)
    v = schedule([0.9, 0.5], "v_prediction").loss_weight(t, debiased=True)
    assert v.tolist() == pytest.approx([0.1, 0.5], rel=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_weights_at_zero_terminal_snr_are_those_of_the_schedule_as_it_was(prediction_type: str) -> None:
    """As sd-scripts, which takes the SNR before it corrects the schedule. Stable Diffusion's last abar is 0.00466."""
    config = SD | {"prediction_type": prediction_type}
    fixed, plain = NoiseSchedule.from_config(config, zero_terminal_snr=True), NoiseSchedule.from_config(config)
    t = torch.arange(1000)
    for values in ({"min_snr_gamma": 5.0}, {"debiased": True}, {"scale_v": True}, {"v_like": 0.5}):
        assert torch.equal(fixed.loss_weight(t, **values), plain.loss_weight(t, **values))
    snr = 0.0046601 / (1 - 0.0046601)
    last = {
        "epsilon": (1.0, snr**-0.5),
        "v_prediction": (snr / (snr + 1), 1 / (snr + 1)),
    }[prediction_type]
    t = torch.tensor([999])
    assert fixed.loss_weight(t, 5.0).item() == pytest.approx(last[0], rel=1e-3)
    assert fixed.loss_weight(t, debiased=True).item() == pytest.approx(last[1], rel=1e-3)
    assert fixed.to("cpu").loss_weight(t, 5.0).item() == pytest.approx(last[0], rel=1e-3)


def test_debiased_weights_are_capped_at_both_ends() -> None:
    """At an SNR of 1000 (the clean end), and where a table ends in no signal at the least SNR that it has."""
    eps = schedule([1 - 1e-7, 0.5, 0.2, 0.0]).loss_weight(torch.arange(4), debiased=True)
    assert eps.tolist() == pytest.approx([1000**-0.5, 1.0, 2.0, 2.0], rel=1e-4)
    v = schedule([1 - 1e-7, 0.5, 0.2, 0.0], "v_prediction").loss_weight(torch.arange(4), debiased=True)
    assert v.tolist() == pytest.approx([1 / 1001, 0.5, 0.8, 0.8], rel=1e-4)


def test_offset_noise_is_one_constant_per_sample_and_channel() -> None:
    base = torch.zeros(2, 3, 4, 4)
    made = N.offset_noise(base, 0.5, torch.Generator().manual_seed(1))
    expected = 0.5 * torch.randn(2, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    assert torch.equal(made, expected.expand(2, 3, 4, 4))


def test_pyramid_noise_has_unit_deviation_and_long_waves() -> None:
    fine = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    made = N.pyramid_noise(fine, 6, 0.8, torch.Generator().manual_seed(0))
    assert made.std().item() == pytest.approx(1.0, abs=1e-5)

    def neighbours(x: torch.Tensor) -> float:
        return (x[..., :-1] * x[..., 1:]).mean().item()

    assert abs(neighbours(fine)) < 0.05 < 0.2 < neighbours(made)


RADII = [0, 0.5, 1.5, 3, 6, 11, 30]


def power_by_radius(levels: int, discount: float, side: int = 32, draws: int = 1500) -> list[float]:
    """Mean power of pyramid noise at spatial frequencies of each ring."""
    random, power = torch.Generator().manual_seed(0), torch.zeros(side, side)
    for _ in range(draws):
        made = N.pyramid_noise(torch.randn(1, 4, side, side, generator=random), levels, discount, random)
        power += torch.fft.fft2(made, norm="ortho").abs().square().mean((0, 1)) / draws
    return rings(power)


def rings(power: torch.Tensor) -> list[float]:
    f = torch.fft.fftfreq(len(power)) * len(power)
    radius = (f[:, None] ** 2 + f[None] ** 2).sqrt()
    return [power[(radius >= a) & (radius < b)].mean().item() for a, b in itertools.pairwise(RADII)]


@pytest.mark.parametrize(
    ("levels", "discount", "expected"),
    [  # measured with sd-scripts 0.10.1: pyramid_noise_like over 2500 draws
        (1, 0.3, [1.0142, 0.9977, 0.9886, 0.999, 1.0012, 0.9999]),
        (2, 0.3, [1.4615, 1.3841, 1.2879, 1.1019, 0.9887, 0.9791]),
        (8, 0.4, [5.1175, 2.1464, 1.5731, 1.17, 0.9742, 0.9556]),
        (6, 0.8, [114.1601, 9.6334, 3.3452, 1.4599, 0.7939, 0.7331]),
    ],
)
def test_pyramid_noise_has_the_spectrum_of_sd_scripts(levels: int, discount: float, expected: list[float]) -> None:
    assert power_by_radius(levels, discount) == pytest.approx(expected, rel=0.08)


def test_two_levels_have_the_spectrum_that_follows_from_bilinear_enlargement() -> None:
    """Fine noise twice, and d times noise of h cells a side, h = int(32 / r), r even in [2, 4): h is 16 for r = 2 only,
    k in 8 ... 15 with the chance that 32 / (k + 1) < r <= 32 / k.
    """
    side, discount = 32, 0.5
    power = torch.full((side, side), 2.0)
    for h in range(8, 16):
        chance = (min(4.0, side / h) - side / (h + 1)) / 2
        grow = torch.nn.functional.interpolate(torch.eye(h)[:, None], side, mode="linear", align_corners=False)[:, 0]
        line = torch.fft.fft(grow, norm="ortho").abs().square().sum(0)  # power of a line of enlarged white noise
        power += chance * discount**2 * line[:, None] * line[None]
    power /= power.mean()
    assert power_by_radius(2, discount) == pytest.approx(rings(power), rel=0.05)


def test_timesteps_stay_in_range_and_repeat_with_the_seed() -> None:
    def draw(how: N.TimestepSampling) -> torch.Tensor:
        return N.NoiseSchedule.from_config({}).sample_timesteps(5000, torch.Generator().manual_seed(3), 200, 800, how)

    for how in ("uniform", "logit-normal"):
        t = draw(how)  # type: ignore[arg-type]
        assert t.min() >= 200 and t.max() < 800 and torch.equal(t, draw(how))  # type: ignore[arg-type]
    assert draw("logit-normal").float().std() < draw("uniform").float().std()


def test_losses_by_hand() -> None:
    out, target = torch.tensor([[[[3.0]]]]), torch.tensor([[[[0.0]]]])
    assert N.elementwise_loss(out, target, "l2").item() == 9
    assert N.elementwise_loss(out, target, "l1").item() == 3
    # delta 4: sqrt(9 + 16) - 4 = 1
    assert N.elementwise_loss(out, target, "huber", 4.0).item() == 8
    assert N.elementwise_loss(out, target, "smooth_l1", 4.0).item() == 2


def test_huber_delta_by_hand() -> None:
    s = schedule([0.5] * 100)
    t = torch.tensor([0, 50])
    assert N.huber_delta(s, t, 0.1, "constant").tolist() == pytest.approx([0.1, 0.1])
    assert N.huber_delta(s, t, 0.1, "exponential").tolist() == pytest.approx([1.0, math.sqrt(0.1)], rel=1e-5)
    assert N.huber_delta(s, t, 0.1, "snr").tolist() == pytest.approx([0.9 / 4 + 0.1] * 2, rel=1e-5)
    nothing = schedule([0.5, 0.0])  # no signal: sigma is infinite
    assert N.huber_delta(nothing, torch.tensor([1]), 0.1, "snr").tolist() == pytest.approx([0.1])


def test_masked_mean_is_normalised_by_the_area() -> None:
    loss = torch.tensor([[[[4.0, 100.0], [100.0, 100.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert N.masked_mean(loss, mask).tolist() == [4.0]
    assert N.masked_mean(loss, None).tolist() == [76.0]
