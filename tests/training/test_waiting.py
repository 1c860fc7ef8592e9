"""What training has used up is let go, and comes back for pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from maquette import families
from maquette.config import TrainConfig
from maquette.training import preparing
from maquette.training.checkpoint_writer import CheckpointWriter, checkpoint_writer
from maquette.training.job import Job
from tests.training.interrupted import make_photos


def prepared(tmp_path: Path, **changes: Any) -> Job:
    values = {"subject": "zkw disc", "rank": 2, "steps": 2, "sample_prompts": [], "photos": make_photos(tmp_path / "p")}
    return preparing.prepare(TrainConfig.parse({**values, **changes}), tmp_path / "cache", lambda *_: None)


def places(network: nn.Module) -> set[str]:
    return {p.device.type for p in network.parameters()}


def test_on_a_cpu_encoders_leave_memory_unless_they_learn(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    assert places(job.computing.vae) == places(job.computing.text_encoders[0]) == {"meta"}
    learning = prepared(tmp_path / "b", text_encoder=True)
    assert places(learning.computing.vae) == {"meta"} and places(learning.computing.text_encoders[0]) == {"cpu"}
    with checkpoint_writer(job.config, job.base, job.dataset).preview_model(None) as base:
        assert base.device.type == "cpu" and places(base.vae) == places(base.unet) == {"cpu"}
        pictures = base.decode(torch.zeros(1, 4, 16, 16))
    assert torch.equal(pictures, families.load("pocket").decode(torch.zeros(1, 4, 16, 16)))


class Carried(nn.Module):
    """Says where it is told to go instead of going there, for want of another device."""

    def __init__(self, waits: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, device="cpu" if waits else "meta"))
        self.told: list[str] = []

    def to(self, place: Any, *_: Any, **__: Any) -> Carried:
        self.told.append(str(place))
        return self


def test_elsewhere_they_come_back_while_pictures_are_drawn(tmp_path: Path) -> None:
    job = prepared(tmp_path)
    waiting, there = Carried(True), Carried(False)
    base = replace(job.base, network=nn.Linear(1, 1, device="meta"), vae=waiting, text_encoders=[there])
    with CheckpointWriter(job.config, base, job.dataset).base_model() as found:
        assert found is base and waiting.told == ["meta"]
    assert waiting.told == ["meta", "cpu"] and there.told == []
