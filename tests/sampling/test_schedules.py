"""Noise levels by every schedule: values that their definitions give by hand, and scipy's beta distribution."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest

from maquette.sampling.levels import NoiseLevels
from maquette.sampling.samplers import SAMPLERS
from maquette.sampling.schedules import (
    SCHEDULES,
    align_your_steps,
    beta,
    beta_quantile,
    incomplete_beta,
    polyexponential,
)
from maquette.sampling.steps import encoded_steps, sigma_steps, timestep_steps

SD1: dict[str, Any] = {
    "beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "timestep_spacing": "leading",
    "steps_offset": 1,
}  # fmt: skip
LEVELS = NoiseLevels.from_config(SD1)
S = LEVELS.sigmas


def test_the_table_of_sd() -> None:
    assert len(S) == 1000
    assert LEVELS.sigma_min == pytest.approx(0.029167, abs=1e-6) and LEVELS.sigma_max == pytest.approx(
        14.614642, rel=1e-6
    )
    assert LEVELS.t_to_sigma(7) == S[7] and LEVELS.sigma_to_t(S[951]) == 951.0
    assert LEVELS.t_to_sigma(7.5) == pytest.approx(math.sqrt(S[7] * S[8]))
    assert LEVELS.sigma_to_t(LEVELS.t_to_sigma(123.25)) == pytest.approx(123.25)
    assert (LEVELS.sigma_to_t(0.0), LEVELS.sigma_to_t(99.0)) == (0.0, 999.0)


def test_zero_terminal_snr_has_a_last_level_as_a1111() -> None:
    levels = NoiseLevels.from_config(SD1 | {"rescale_betas_zero_snr": True})
    assert levels.sigma_max == pytest.approx(4518.75, rel=1e-4)


def test_flow() -> None:
    levels = NoiseLevels.flow(shift=3.0)
    assert levels.sigma_max == 1.0
    assert levels.sigmas[499] == pytest.approx(0.75)  # of one half
    assert levels.time(0.75) == 750.0 and levels.scale(0.75) == 1.0
    import torch

    x0, n = torch.tensor(2.0), torch.tensor(-1.0)
    x = levels.noised(x0, n, 0.25)
    assert float(x) == 0.75 * 2 - 0.25
    assert float(levels.denoised(n - x0, x, 0.25)) == pytest.approx(2.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("n", [1, 2, 10, 25, 30, 150])
def test_levels_fall_from_the_highest(name: str, n: int) -> None:
    found = SCHEDULES[name](n, LEVELS)
    more = name == "DDIM" and 1000 % n  # as in A1111
    assert len(found) == n + 1 or (more and len(found) > n + 1)
    assert all(a > b for a, b in pairwise(found))
    assert found[-1] == 0.0 or (name == "KL Optimal" and found[-1] == pytest.approx(LEVELS.sigma_min))
    if n > 1 and name != "DDIM":
        assert found[0] == pytest.approx(14.6146, rel=0.01)


def test_values() -> None:
    assert SCHEDULES["Simple"](4, LEVELS) == [S[999], S[749], S[499], S[249], 0.0]
    assert SCHEDULES["DDIM"](4, LEVELS) == [S[751], S[501], S[251], S[1], 0.0]
    assert SCHEDULES["Turbo"](4, LEVELS) == [S[999], S[749], S[499], S[249], 0.0]
    assert SCHEDULES["SGM Uniform"](3, LEVELS) == pytest.approx([S[999], S[666], S[333], 0.0])
    assert SCHEDULES["Normal"](4, LEVELS) == pytest.approx([S[999], S[666], S[333], S[0], 0.0])
    assert SCHEDULES["Uniform"](4, LEVELS) == pytest.approx([S[999], S[666], S[333], S[0], 0.0])
    middle = math.tan((math.atan(S[0]) + math.atan(S[999])) / 2)
    assert SCHEDULES["KL Optimal"](2, LEVELS) == pytest.approx([S[999], middle, S[0]])
    assert polyexponential(3, LEVELS, rho=2.0)[1] == pytest.approx(math.exp(0.25 * math.log(S[999] / S[0])) * S[0])


def test_align_your_steps() -> None:
    assert align_your_steps(11, LEVELS)[:3] == pytest.approx([14.615, 6.475, 3.861])
    assert align_your_steps(11, NoiseLevels(S, xl=True))[:3] == pytest.approx([14.615, 6.315, 3.771])
    assert align_your_steps(21, LEVELS)[1] == pytest.approx(math.sqrt(14.615 * 6.475))


def test_beta_against_scipy() -> None:
    from scipy import stats

    for a, b in ((0.6, 0.6), (1.0, 1.0), (2.0, 5.0), (0.3, 4.0)):
        for q in (1e-6, 0.01, 0.3, 0.5, 0.77, 0.999):
            assert beta_quantile(q, a, b) == pytest.approx(stats.beta.ppf(q, a, b), rel=1e-9)
            assert incomplete_beta(q, a, b) == pytest.approx(stats.beta.cdf(q, a, b), rel=1e-11)
    quantiles = [float(stats.beta.ppf(1 - i / 9, 0.6, 0.6)) for i in range(10)]
    assert beta(10, LEVELS) == pytest.approx([*(S[0] + q * (S[999] - S[0]) for q in quantiles), 0.0])


def test_the_level_before_the_last_is_left_out() -> None:
    """For DPM2, DPM2 a and DPM++ 3M SDE always, for the others on demand: one level more, and the last above 0 less."""
    whole = sigma_steps("Karras", 11, LEVELS).sigmas
    assert sigma_steps("Karras", 10, LEVELS, discard=True).sigmas == [*whole[:-2], 0.0]
    assert [name for name, kind in SAMPLERS.items() if kind.discard] == ["DPM2", "DPM2 a", "DPM++ 3M SDE"]
    assert SAMPLERS["DPM2"].steps(None, 10, LEVELS).sigmas == [*whole[:-2], 0.0]
    assert timestep_steps(9, LEVELS, discard=True).sigmas[0] == S[901]  # of ten


def test_steps_from_a_picture() -> None:
    whole = sigma_steps(None, 10, LEVELS)
    part = sigma_steps(None, 10, LEVELS, t_enc=3)
    assert part.sigmas == whole.sigmas[6:] and part.done_before == 6 and part.every == whole.sigmas
    assert encoded_steps(20, 0.5) == (20, 10)
    assert encoded_steps(20, 0.5, exact=True) == (40, 19)
    assert encoded_steps(20, 1.0) == (20, 19)
    exact = sigma_steps(None, 40, LEVELS, t_enc=19)
    assert len(exact.sigmas) == 21
