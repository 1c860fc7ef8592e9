"""Training a base that predicts flow, and the probe that tells what a base predicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette import families
from maquette.config import TrainConfig
from maquette.core.noise import noise_process
from maquette.errors import MaquetteError
from maquette.families import checkpoint, save
from maquette.formats import safetensors
from maquette.stages import train
from maquette.training import probe
from tests.families import tiny
from tests.training.interrupted import make_photos

QUICK = {"subject": "zkw disc", "steps": 2, "batch_size": 1, "rank": 2, "dtype": "fp32", "sample_prompts": []}


def run(tmp_path: Path, name: str, **values: Any) -> Path:
    photos = tmp_path / "photos"
    if not photos.exists():
        make_photos(photos)
    train.run(TrainConfig.parse({**QUICK, "photos": photos, "out": tmp_path / name, **values}))
    return tmp_path / name


@pytest.fixture(scope="module")
def flow_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow SDXL, as rectified-flow SDXL is published: one file that does not say what it predicts."""
    root = tmp_path_factory.mktemp("flow")
    save.write_single_file(checkpoint.read(tiny.write_folder(root / "folder", "sdxl")), root / "plain.safetensors")
    return root / "plain.safetensors"


def test_a_flow_is_trained_and_resumed_bit_for_bit(flow_sdxl: Path, tmp_path: Path) -> None:
    values = {"base": str(flow_sdxl), "prediction_type": "flow", "resolution": 64, "lr_scheduler": "constant"}
    whole = run(tmp_path, "whole", **values, steps=3)
    half = run(tmp_path, "half", **values, steps=2, keep_state=True)
    train.resume(half, {"steps": 3})
    assert (whole / "whole.safetensors").exists()
    first, second = (safetensors.load(path) for path in (whole / "whole.safetensors", half / "half.safetensors"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    metadata = safetensors.read_metadata(whole / "whole.safetensors")
    assert metadata["modelspec.prediction_type"] == "flow"
    told = (whole / "run.toml").read_text()
    assert 'prediction_type = "flow"' in told and "timestep_shift = 3.0" in told and "min_snr_gamma = 0.0" in told


def test_a_flow_differs_from_epsilon(flow_sdxl: Path, tmp_path: Path) -> None:
    values = {"base": str(flow_sdxl), "resolution": 64, "steps": 1}
    losses = [
        json.loads((run(tmp_path, name, **values, prediction_type=name) / "metrics.jsonl").read_text().splitlines()[0])
        for name in ("flow", "epsilon")
    ]
    assert losses[0]["loss"] != losses[1]["loss"]


@pytest.mark.parametrize("key", ["min_snr_gamma", "debiased_estimation", "v_pred_like_loss", "zero_terminal_snr"])
def test_weights_of_other_predictions_are_refused(key: str, flow_sdxl: Path, tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=f"{key} has no effect on a base that predicts flow"):
        run(tmp_path, "run", base=str(flow_sdxl), prediction_type="flow", resolution=64, **{key: 1})


def test_a_shift_without_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="timestep_shift is for bases that predict flow"):
        run(tmp_path, "run", timestep_shift=2.0)


@pytest.mark.parametrize("wrong", ["flow", "epsilon"])
def test_a_base_that_predicts_something_else_is_refused(wrong: str, tmp_path: Path) -> None:
    with pytest.raises(
        MaquetteError, match=rf"pocket does not seem to predict {wrong}: .* prediction_type = v_prediction"
    ):
        run(tmp_path, "run", prediction_type=wrong)
    assert not (tmp_path / "run/checkpoints").exists() or not list((tmp_path / "run/checkpoints").iterdir())
    assert run(tmp_path, "turned", prediction_type=wrong, probe_prediction=False).exists()


@pytest.mark.parametrize("kind", probe.PREDICTIONS)
def test_the_probe_tells_each_prediction_from_the_others(kind: str) -> None:
    """Of a network that knows the pictures, whatever it was trained to say of them."""
    x0 = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": kind}
    own = noise_process(config)

    def knows(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t.to(own.t_dtype)
        clean = own.add_noise(x0, torch.zeros_like(x0), t)
        noise = (x_t - clean) / own.add_noise(torch.zeros_like(x0), torch.ones_like(x0), t)
        return own.target(x0, noise, t)

    found = {name: float(loss.mean()) for name, loss in probe.losses_of(knows, config, x0).items()}
    assert found[kind] < 1e-6 and sorted(found, key=lambda name: found[name])[0] == kind
    said = "epsilon" if kind != "epsilon" else "flow"
    sentence = probe.contradiction(knows, {**config, "prediction_type": said}, x0, "base.safetensors") or ""
    assert f"does not seem to predict {said}" in sentence and f"prediction_type = {kind}" in sentence


def test_a_network_that_learned_nothing_is_let_pass() -> None:
    x0 = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(7))
    answer = torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))
    assert probe.contradiction(lambda x, t: answer, {"prediction_type": "epsilon"}, x0, "random") is None


def test_a_flow_model_says_so_in_every_container(flow_sdxl: Path, tmp_path: Path) -> None:
    assert checkpoint.read(flow_sdxl).scheduler["prediction_type"] == "epsilon"  # what a silent file is taken for
    flow = checkpoint.read(flow_sdxl, "flow")
    assert flow.scheduler["shift"] == 3.0
    save.write_single_file(flow, tmp_path / "one.safetensors")
    save.write_folder(flow, tmp_path / "folder")
    for path in (tmp_path / "one.safetensors", tmp_path / "folder"):
        base = families.load(path)
        assert base.scheduler_config["prediction_type"] == "flow" and base.scheduler_config["shift"] == 3.0
    config = json.loads((tmp_path / "folder/scheduler/scheduler_config.json").read_text())
    assert config["_class_name"] == "FlowMatchEulerDiscreteScheduler"
