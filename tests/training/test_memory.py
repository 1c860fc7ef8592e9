"""The estimate of a step's memory against what a step really makes, and what is said when it does not suffice."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.fast import processor
from maquette.formats import safetensors
from maquette.stages import train
from maquette.training import memory, preparing
from maquette.training.job import Job
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 3, "rank": 2, "dtype": "fp32", "steps": 2, "sample_prompts": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("memory") / "photos")


def config(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse({**VALUES, "photos": photos, "out": out, **changes})


def test_the_counter_sees_the_most_at_once() -> None:
    with memory.PeakMemory() as peak:
        a = torch.ones(1000)
        b = a * 2
        view = b[:10]
        del a
        c = b + 1
    assert (peak.most, peak.now) == (8000, 8000) and len(view) + len(c) == 1010
    del c
    assert peak.now == 4000


@pytest.mark.parametrize(
    "changes",
    [{}, {"gradient_checkpointing": True}, {"method": "locon", "dtype": "bf16"}, {"method": "dreambooth"}],
    ids=lambda c: "-".join(map(str, c.values())) or "plain",
)
def test_the_estimate_is_what_a_step_makes(
    changes: dict[str, Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "packs", lambda dtype: False)
    job = preparing.prepare(config(photos, tmp_path / "run", **changes), tmp_path / "cache", lambda *_: None)
    told = memory.estimate(job, 3, job.config.gradient_checkpointing)
    with memory.PeakMemory() as peak:
        job.gradients(0)
    assert told.step == pytest.approx(peak.most, rel=0.08)
    assert memory.estimate(job, 1, False).step < told.step or changes.get("gradient_checkpointing")
    assert told.networks == _plain_bytes(job) and told.learning == 12 * sum(p.numel() for p in job.parameters)


def _plain_bytes(job: Job) -> int:
    """Frozen weights of the UNet alone: VAE and text encoder are let go once photos and captions are encoded."""
    return sum(p.numel() * p.itemsize for p in job.computing.unet.parameters() if not p.requires_grad)


def test_checkpointing_takes_half_and_changes_no_number(photos: Path, tmp_path: Path) -> None:
    files, dropouts = [], {"dropout": 0.2, "rank_dropout": 0.2, "module_dropout": 0.2}
    for name, again in (("plain", False), ("again", True)):
        result = train.run(config(photos, tmp_path / name / "disc", gradient_checkpointing=again, **dropouts))
        assert result.file
        files.append(safetensors.load(result.file))
    assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())
    job = preparing.prepare(config(photos, tmp_path / "run"), tmp_path / "cache", lambda *_: None)
    assert memory.estimate(job, 3, True).step < 0.6 * memory.estimate(job, 3, False).step


def on_the_device(*_: Any) -> torch.Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory")


def on_the_cpu(*_: Any) -> torch.Tensor:
    return torch.empty(10**15)  # the system itself refuses


@pytest.mark.parametrize("fault", [on_the_device, on_the_cpu])
def test_out_of_memory_says_what_to_change_and_how_much_it_saves(
    fault: Callable[..., torch.Tensor], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("maquette.training.objective.Objective.denoising", fault)
        with pytest.raises(MaquetteError) as error:
            train.run(config(photos, tmp_path / "a"))
        told = str(error.value)
        assert re.search(r"3 photos at once need about 0\.1\d GB \(networks 0\.0\d+, what learns", told), told
        for part in ("gradient_accumulation=2 (about 0.1", "batch_size=1 (about", "gradient_checkpointing=true (about",
                     "resolution=32 (about"):  # fmt: skip
            assert part in told
        if fault is on_the_cpu:  # the advice is the same for both
            with pytest.raises(MaquetteError) as error:
                train.run(config(photos, tmp_path / "b", gradient_accumulation=3, gradient_checkpointing=True))
            assert "Use --set resolution=32 (about" in str(error.value)
    result = train.resume(tmp_path / "a", {"gradient_checkpointing": True})
    assert result.status == "finished"


def test_out_of_memory_before_the_first_step(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparing, "encode_photos", on_the_cpu)
    with pytest.raises(MaquetteError, match="encode the largest photo; lower resolution"):
        train.run(config(photos, tmp_path / "a"))


def test_another_fault_is_not_taken_for_it(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: Any) -> torch.Tensor:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("maquette.training.objective.Objective.denoising", fault)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train.run(config(photos, tmp_path / "a"))
