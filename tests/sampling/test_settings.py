"""Settings of samplers: what infotext says of them, and that they reach the picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maquette
from maquette import families
from maquette.errors import MaquetteError
from maquette.families.base import BaseModel
from maquette.formats.png import parse_infotext
from maquette.sampling.samplers import schedule_notice
from maquette.sampling.settings import SamplerSettings


@pytest.mark.parametrize(
    ("sampler", "settings", "said"),
    [
        ("Euler a", {}, {"RNG": "CPU"}),
        ("Euler a", {"eta": 1.0}, {"RNG": "CPU"}),
        ("Euler a", {"eta": 0.5, "ensd": 31337}, {"ENSD": 31337, "RNG": "CPU", "Eta": "0.5"}),
        ("Euler a", {"eta": 0.0, "ensd": 31337}, {"RNG": "CPU", "Eta": "0"}),
        ("Euler", {"eta": 0.5, "ensd": 31337, "noise_source": "NV"}, {"RNG": "NV"}),
        ("DDIM", {"eta": 0.0}, {"RNG": "CPU"}),
        ("DDIM", {"cfg_rescale": 0.7}, {"RNG": "CPU", "CFG Rescale": "0.7"}),
        ("DDIM", {"eta": 0.5}, {"RNG": "CPU", "Eta DDIM": "0.5"}),
        (
            "Heun Karras",
            {"s_churn": 5, "s_tmin": 0.1, "s_tmax": 9, "s_noise": 1.1},
            {"RNG": "CPU", "Sigma churn": "5", "Sigma tmin": "0.1", "Sigma tmax": "9", "Sigma noise": "1.1"},
        ),
        ("DPM++ 2M", {"s_churn": 5, "s_noise": 1.1}, {"RNG": "CPU"}),
        ("DPM++ 2M", {"discard_penultimate_sigma": True}, {"RNG": "CPU", "Discard penultimate sigma": "True"}),
        ("DPM2", {"discard_penultimate_sigma": True}, {"RNG": "CPU"}),
    ],
)
def test_infotext(sampler: str, settings: dict[str, Any], said: dict[str, Any]) -> None:
    """Keys of A1111 1.10, and only of settings that the sampler has."""
    own = SamplerSettings.parse(settings)
    values = {**own.noise_values(sampler), **own.sampler_values(sampler)}
    assert {key: value for key, value in values.items() if value is not None} == said


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eta": 2}, r"eta = 2 is not possible"),
        ({"noise_source": "TPU"}, r"noise_source = 'TPU' is not possible"),
        ({"s_tmax": float("inf")}, r"s_tmax = inf is not possible"),
    ],
)
def test_bad_values(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        SamplerSettings.parse(settings)


@pytest.fixture(scope="module")
def base() -> BaseModel:
    return families.load("pocket")


def test_settings_reach_the_picture(base: BaseModel, tmp_path: Path) -> None:
    def drawn(**options: Any) -> tuple[np.ndarray, dict[str, str]]:
        made = maquette.generate("a cat", base=base, seed=3, steps=4, sampler="Euler a", out=tmp_path, **options)
        return np.asarray(made[0]).astype(int), parse_infotext(made.infotexts[0])

    plain, said = drawn()
    assert "ENSD" not in said and "Eta" not in said
    other, said = drawn(ensd=7, eta=0.5, noise_source="NV")
    assert (said["ENSD"], said["Eta"], said["RNG"]) == ("7", "0.5", "NV")
    kept, said = drawn(discard_penultimate_sigma=True)
    assert said["Discard penultimate sigma"] == "True"
    each: list[dict[str, Any]] = [{"ensd": 7}, {"eta": 0.5}, {"noise_source": "NV"}, {"cfg_rescale": 1.0}]
    for changed in (other, kept, *(drawn(**options)[0] for options in each)):
        assert np.abs(changed - plain).max() > 5
    with pytest.raises(MaquetteError, match=r'"NV" gives the same numbers on any machine'):
        drawn(noise_source="GPU")


def test_a_schedule_that_does_not_suit_is_told() -> None:
    for sampler in ("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"):
        assert "take Exponential, its usual schedule" in (schedule_notice(f"{sampler} Beta") or "")
        assert schedule_notice(sampler) is None and schedule_notice(f"{sampler} Karras") is None
    assert schedule_notice("DPM++ SDE Beta") is None
