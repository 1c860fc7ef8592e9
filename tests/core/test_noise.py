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
    with pytest.raises(MaquetteError, match="'flow'"):
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
    assert v.tolist() == pytest.approx([5 / 10, 1 / 2, 0.0], rel=1e-5)
    assert schedule([0.9]).loss_weight(torch.tensor([0])).tolist() == [1.0]


def test_debiased_weights_by_hand() -> None:
    t = torch.tensor([0, 1])
    assert schedule([0.9, 0.5]).loss_weight(t, debiased=True).tolist() == pytest.approx([1 / 3, 1.0], rel=1e-5)
    v = schedule([0.9, 0.5], "v_prediction").loss_weight(t, debiased=True)
    assert v.tolist() == pytest.approx([0.1, 0.5], rel=1e-5)


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


def test_timesteps_stay_in_range_and_repeat_with_the_seed() -> None:
    def draw(how: N.TimestepSampling) -> torch.Tensor:
        return N.sample_timesteps(5000, torch.Generator().manual_seed(3), 200, 800, how)

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


def test_masked_mean_is_normalised_by_the_area() -> None:
    loss = torch.tensor([[[[4.0, 100.0], [100.0, 100.0]]]])
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    assert N.masked_mean(loss, mask).tolist() == [4.0]
    assert N.masked_mean(loss, None).tolist() == [76.0]
