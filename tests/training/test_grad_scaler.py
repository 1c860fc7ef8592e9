"""Computing in float16: the scaled loss gives the gradients of the loss, and finds its scale."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from maquette.config import TrainConfig
from maquette.events import Event
from maquette.formats import safetensors
from maquette.stages import train
from maquette.training.grad_scaler import GradScaler
from maquette.training.job import Job
from tests.training import direct
from tests.training.interrupted import make_photos


def test_scale_falls_at_once_and_rises_with_patience() -> None:
    scaler, finite = GradScaler(True, growth_interval=3), 1.0
    assert scaler.backoff(finite) and scaler.scale == 2**15
    for expected in (2**15, 2**15, 2**16, 2**16):
        scaler.update()
        assert scaler.scale == expected
    assert not scaler.backoff(float("nan"))  # no scale mends the loss itself
    while scaler.backoff(finite):
        pass
    assert scaler.scale == 1
    idle = GradScaler(False)
    assert idle.scale == 1 and not idle.backoff(finite)


def test_gradients_too_small_for_float16_survive() -> None:
    """d loss / dw = 2^-28, which float16 rounds to 0; 2^16 times as much it has."""
    w = nn.Parameter(torch.tensor(1.0))
    kept = []
    for scaler in (GradScaler(False), GradScaler(True)):
        w.grad = None
        half = w.half() * 2.0**-14  # float16 passes the gradient back
        (half.float() * 2.0**-14 * scaler.scale).backward()
        scaler.unscale_([w])
        kept.append(float(w.grad))  # type: ignore[arg-type]
    assert kept == [0.0, 2.0**-28]


VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 1, "rank": 2, "steps": 3, "sample_prompts": [], "save_dtype": "fp32",
    "optimizer": "sgd", "learning_rate": 0.1, "lr_scheduler": "constant", "max_grad_norm": 0,
    "keep_state": True,
}  # fmt: skip


@pytest.mark.heavy
@pytest.mark.parametrize("method", ["lora", "dreambooth"])
def test_float16_learns_what_float32_does(method: str, tmp_path: Path, with_bf16: None) -> None:
    photos = make_photos(tmp_path / "photos")
    learned = {}
    for dtype in ("fp32", "fp16"):
        values = {**VALUES, "photos": photos, "out": tmp_path / dtype, "dtype": dtype, "method": method, "steps": 2}
        result = train.run(TrainConfig.parse(values | ({"learning_rate": 1e-4} if method == "dreambooth" else {})))
        assert result.file
        learned[dtype] = safetensors.load(result.file)
    name = "lora_up.weight" if method == "lora" else "model.diffusion_model"
    keys = [key for key in learned["fp32"] if name in key and learned["fp32"][key].is_floating_point()]
    exact = torch.cat([learned["fp32"][key].flatten() for key in keys])
    rounded = torch.cat([learned["fp16"][key].flatten() for key in keys])
    assert exact.abs().max() > 1e-4
    assert (exact - rounded).norm() < 0.02 * exact.norm()


def test_an_overflow_lowers_the_scale_and_is_no_fault(tmp_path: Path, with_bf16: None) -> None:
    warnings: list[Event] = []
    values = {**VALUES, "photos": make_photos(tmp_path / "photos"), "out": tmp_path / "disc", "dtype": "fp16"}

    def overflowing(job: Job) -> None:
        job.scaler = GradScaler(True, init_scale=2.0**40)  # the first steps' gradients are infinite

    result = direct.run(
        TrainConfig.parse(values), lambda e: warnings.append(e) if e.kind == "warning" else None, overflowing
    )
    assert result.status == "finished" and warnings == []
    manifest = (tmp_path / "disc/state/000003/manifest.json").read_text()
    assert '"scale": 137438953472.0' in manifest  # 2^37, after three halvings
    ups = [value for key, value in safetensors.load(tmp_path / "disc/disc.safetensors").items() if "lora_up" in key]
    assert all(not value.any() for value in ups)  # no step was taken
