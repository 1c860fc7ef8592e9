"""A run is resumed with as many threads as it began with, since sums are divided among them."""

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from maquette.config import TrainConfig
from maquette.events import Event
from maquette.stages import train
from maquette.training.environment import differences, pinned_threads
from tests.training.interrupted import SETTINGS, make_photos


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(tmp_path: Path, name: str, **values: Any) -> TrainConfig:
    return TrainConfig.parse(
        {**SETTINGS, "photos": tmp_path / "photos", "out": tmp_path / name / "disc", "steps": 4, **values}
    )


def stopped_after_two(tmp_path: Path, name: str) -> Path:
    cancel = threading.Event()

    def listen(event: Event) -> None:
        if event.kind == "metric" and event.data["step"] == 2:
            cancel.set()

    assert train.run(config(tmp_path, name), listen, cancel).step == 2
    return tmp_path / name / "disc"


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core has one thread")
def test_the_resumed_run_has_the_threads_it_began_with(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    torch.set_num_threads(2)
    whole = train.run(config(tmp_path, "whole")).file
    run = stopped_after_two(tmp_path, "parts")
    assert json.loads((run / "computer.json").read_text())["threads"] == 2
    torch.set_num_threads(1)
    warnings: list[Event] = []
    ended = train.resume(run, None, lambda e: warnings.append(e) if e.kind == "warning" else None)
    assert torch.get_num_threads() == 1 and warnings == []
    assert whole and ended.file and Path(ended.file).read_bytes() == Path(whole).read_bytes()


def test_what_cannot_be_as_before_is_told(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    run = stopped_after_two(tmp_path, "parts")
    told = json.loads((run / "computer.json").read_text())
    (run / "computer.json").write_text(json.dumps(told | {"torch": "1.0", "threads": 4096}))
    warnings: list[str] = []
    train.resume(run, None, lambda e: warnings.append(e.data["message"]) if e.kind == "warning" else None)
    now = torch.get_num_threads()
    assert warnings == [
        f"The run began under other conditions (torch 1.0, now {torch.__version__}; threads 4096, now {now}): "
        "it goes on, but the last digits of its weights will not be those of an uninterrupted run."
    ]


def test_a_run_of_older_versions_goes_on_without_a_word(tmp_path: Path) -> None:
    make_photos(tmp_path / "photos")
    run = stopped_after_two(tmp_path, "parts")
    (run / "computer.json").unlink()
    warnings: list[Event] = []
    assert train.resume(run, None, lambda e: warnings.append(e) if e.kind == "warning" else None).step == 4
    assert warnings == []


def test_more_processes_keep_their_own_threads() -> None:
    torch.set_num_threads(1)
    with pinned_threads({"threads": 2, "processes": 1}, processes=2):
        assert torch.get_num_threads() == 1
    began = {"threads": 2, "processes": 1}
    assert differences(began, {"threads": 1, "processes": 2}) == ["threads 2, now 1", "processes 1, now 2"]
