"""The loss of a step against numbers computed by hand, with a base that answers what it is told to."""

from typing import Any

import pytest
import torch
from torch import nn

from maquette.config import TrainConfig
from maquette.core.denoiser import Conditioning
from maquette.training.batches import Batch
from maquette.training.objective import Objective

BETAS = [0.1, 0.4, 0.7]  # abar = 0.9, 0.54, 0.162
ABAR = [0.9, 0.54, 0.162]
X0 = torch.tensor([[[[0.5, -1.0]]], [[[2.0, 0.25]]]])  # (2, 1, 1, 2)


class Base:
    """Answers `scale` times the noisy latent, and remembers what it was shown."""

    def __init__(self, scale: float, prediction: str = "epsilon") -> None:
        self.network = nn.Linear(1, 1)
        self.scheduler_config = {"trained_betas": BETAS, "prediction_type": prediction}
        self.device = torch.device("cpu")
        self.scale, self.seen = scale, []

    def predict(self, x_t: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        self.seen.append((x_t, t))
        return self.scale * x_t


def settings(**values: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": "photos", "min_snr_gamma": 0, "dtype": "fp32", **values})


def batch(mask: torch.Tensor | None = None) -> Batch:
    return Batch(X0, [0, 1], ["", ""], torch.zeros(2, 6), mask)


def run(base: Base, mask: torch.Tensor | None = None, **values: Any) -> tuple[torch.Tensor, ...]:
    """The losses, and the draws behind them made again: t, noise, and the generator after them."""
    told = Conditioning(torch.zeros(2, 77, 1))
    config = settings(**values)
    question = Objective(config, base).denoising(batch(mask), told, torch.Generator().manual_seed(4))  # type: ignore[arg-type]
    losses = question.losses()
    random = torch.Generator().manual_seed(4)
    t = torch.randint(config.min_timestep, min(config.max_timestep, 3), (2,), generator=random)
    return losses, t, torch.randn(X0.shape, generator=random), random  # type: ignore[return-value]


def roots(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    abar = torch.tensor(ABAR)[t].reshape(2, 1, 1, 1)
    return abar.sqrt(), (1 - abar).sqrt()


def test_the_plain_loss_is_the_noises_mean_square() -> None:
    base = Base(0.5)
    losses, t, n, _ = run(base)
    a, s = roots(t)
    torch.testing.assert_close(base.seen[0][0], a * X0 + s * n)
    torch.testing.assert_close(losses, (0.5 * (a * X0 + s * n) - n).square().mean((1, 2, 3)))


def test_v_prediction_with_min_snr_and_debiasing() -> None:
    losses, t, n, _ = run(Base(0.5, "v_prediction"), min_snr_gamma=2.0, debiased_estimation=True)
    a, s = roots(t)
    snr = torch.tensor(ABAR)[t] / (1 - torch.tensor(ABAR)[t])
    plain = (0.5 * (a * X0 + s * n) - (a * n - s * X0)).square().mean((1, 2, 3))
    torch.testing.assert_close(losses, plain * snr.clamp(max=2.0) / (snr + 1) / (snr + 1))


def test_min_snr_by_hand_for_noise_prediction() -> None:
    losses, t, n, _ = run(Base(0.0), min_snr_gamma=0.5)
    snr = [9.0, 0.54 / 0.46, 0.162 / 0.838]
    weight = torch.tensor([min(snr[i], 0.5) / snr[i] for i in t.tolist()])
    torch.testing.assert_close(losses, n.square().mean((1, 2, 3)) * weight)


def test_zero_terminal_snr_weighs_by_the_schedule_as_it_was() -> None:
    """The last step has no signal: v is -x0 there, and what is seen pure noise. Its weight is snr / (snr + 1) = abar of
    the schedule before it was corrected; of its own it would be 0.
    """
    base = Base(1.0, "v_prediction")
    losses, t, n, _ = run(base, zero_terminal_snr=True, min_timestep=2, min_snr_gamma=5.0)
    plain = (n + X0).square().mean((1, 2, 3))
    assert t.tolist() == [2, 2]
    torch.testing.assert_close(losses, 0.162 * plain)
    torch.testing.assert_close(base.seen[0][0], n)
    losses, *_ = run(Base(1.0, "v_prediction"), zero_terminal_snr=True, min_timestep=2)
    torch.testing.assert_close(losses, plain)


@pytest.mark.parametrize(
    ("prediction", "values", "weight"),
    [
        ("v_prediction", {"scale_v_pred_loss_like_noise_pred": True}, lambda snr: snr / (snr + 1)),
        ("epsilon", {"scale_v_pred_loss_like_noise_pred": True}, lambda snr: 1.0),
        ("epsilon", {"v_pred_like_loss": 0.3}, lambda snr: 1 + 0.3 * (snr + 1) / snr),
        ("v_prediction", {"v_pred_like_loss": 0.3}, lambda snr: 1.0),
        ("epsilon", {"v_pred_like_loss": 0.3, "debiased_estimation": True},
         lambda snr: (1 + 0.3 * (snr + 1) / snr) / snr**0.5),
        ("v_prediction", {"scale_v_pred_loss_like_noise_pred": True, "min_snr_gamma": 0.5, "debiased_estimation": True},
         lambda snr: min(snr, 0.5) / (snr + 1) * snr / (snr + 1) / (snr + 1)),
    ],
)  # fmt: skip
def test_kohyas_weights_by_hand(prediction: str, values: dict[str, Any], weight: Any) -> None:
    plain, t, *_ = run(Base(0.5, prediction))
    losses, *_ = run(Base(0.5, prediction), **values)
    weights = [weight(ABAR[i] / (1 - ABAR[i])) for i in t.tolist()]
    torch.testing.assert_close(losses, plain * torch.tensor(weights))


@pytest.mark.parametrize(("kind", "expected"), [("l1", lambda e: e.abs()), ("l2", lambda e: e.square())])
def test_l1_and_l2(kind: str, expected: Any) -> None:
    losses, _, n, _ = run(Base(0.0), loss_type=kind)
    torch.testing.assert_close(losses, expected(n).mean((1, 2, 3)))


@pytest.mark.parametrize(("kind", "outer"), [("huber", True), ("smooth_l1", False)])
def test_huber_with_the_threshold_of_the_timestep(kind: str, outer: bool) -> None:
    losses, t, n, _ = run(Base(0.0), loss_type=kind, huber_delta=0.2, huber_schedule="snr")
    sigma = torch.tensor([((1 - ABAR[i]) / ABAR[i]) ** 0.5 for i in t.tolist()]).reshape(2, 1, 1, 1)
    d = 0.8 / (1 + sigma) ** 2 + 0.2
    pseudo = 2 * ((n.square() + d * d).sqrt() - d) * (d if outer else 1)
    torch.testing.assert_close(losses, pseudo.mean((1, 2, 3)))


def test_noise_offset_random_and_adaptive() -> None:
    losses, _, n, random = run(Base(0.0), noise_offset=0.3, noise_offset_random=True, noise_offset_adaptive=0.5)
    shift, share = torch.randn(2, 1, 1, 1, generator=random), torch.rand(2, 1, 1, 1, generator=random)
    strength = 0.3 * share + 0.5 * torch.tensor([0.25, 1.125]).reshape(2, 1, 1, 1)  # |mean of x0| is 0.25 and 1.125
    torch.testing.assert_close(losses, (n + strength * shift).square().mean((1, 2, 3)))


def test_input_perturbation_changes_what_is_seen_and_not_the_target() -> None:
    base = Base(0.0)
    losses, t, n, random = run(base, input_perturbation=0.1)
    a, s = roots(t)
    torch.testing.assert_close(base.seen[0][0], a * X0 + s * (n + 0.1 * torch.randn(X0.shape, generator=random)))
    torch.testing.assert_close(losses, n.square().mean((1, 2, 3)))


def test_input_perturbation_of_random_strength() -> None:
    base = Base(0.0)
    _, t, n, random = run(base, input_perturbation=0.1, input_perturbation_random=True)
    a, s = roots(t)
    strength = 0.1 * torch.rand(2, 1, 1, 1, generator=random)
    torch.testing.assert_close(base.seen[0][0], a * X0 + s * (n + strength * torch.randn(X0.shape, generator=random)))


def test_a_mask_counts_its_cells_alone() -> None:
    mask = torch.tensor([[[[1.0, 0.0]]], [[[0.5, 0.5]]]])
    losses, _, n, _ = run(Base(0.0), mask)
    torch.testing.assert_close(losses, torch.stack([n[0, 0, 0, 0] ** 2, n[1].square().mean()]))


def test_timesteps_stay_in_their_range() -> None:
    base = Base(0.0)
    run(base, min_timestep=1, max_timestep=2)
    assert base.seen[0][1].tolist() == [1, 1]


def test_drift_is_the_distance_from_the_bases_own_answer() -> None:
    class Attached:
        def __init__(self, base: Base) -> None:
            self.base = base

        def set_multiplier(self, multiplier: float) -> None:
            self.base.scale = 0.2 + 0.3 * multiplier

    base, told = Base(0.5), Conditioning(torch.zeros(2, 77, 1))
    objective = Objective(settings(), base)  # type: ignore[arg-type]
    drift = objective.prior_loss(batch(), told, told, Attached(base), torch.Generator().manual_seed(4)).losses()  # type: ignore[arg-type]
    x_t = base.seen[0][0]
    torch.testing.assert_close(drift, (0.3 * x_t).square().mean((1, 2, 3)))
    assert base.scale == 0.5
