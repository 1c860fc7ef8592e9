"""stop = auto: what is held out, measured and remembered, and how the run ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.errors import MaquetteError
from maquette.evaluation.panel import Size
from maquette.events import Event
from maquette.run_folder import RunFolder
from maquette.stages import train
from maquette.training import watching
from tests.training.interrupted import make_photos

TINY = Size(photos=4, probed=1, timesteps=2, kept=1, others=1, pictures=2, steps=1, draws=1)
SMALLEST = {
    "subject": "zkw disc", "sample_prompts": [], "batch_size": 1, "rank": 2, "dtype": "fp32", "save_every_steps": 1,
    "stop": "auto", "steps": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("watched") / "photos", 8)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "QUICK", TINY)


def config(photos: Path, out: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": photos, "out": out, **SMALLEST, **changes})


def over_after(step: int) -> Any:
    return lambda rows, rule: f"Training ended by itself after step {step}." if rows and rows[-1].step >= step else None


def test_a_run_that_is_over_ends_there_and_a_resumed_one_ends_at_the_same_step(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    monkeypatch.setattr(watching, "ending", over_after(3))
    result = train.run(config(photos, tmp_path / "whole"), events.append)
    assert (result.status, result.step, result.chosen) == ("finished", 3, 3)
    assert result.reasons[0] == "Training ended by itself after step 3."
    measured = [event.data for event in events if event.kind == "measured"]
    assert [row["step"] for row in measured] == [1, 2, 3]
    assert {"benefit", "held_benefit", "gap", "neighbour_drift", "edit_retention"} <= measured[0].keys()
    assert "likeness" not in measured[0]  # nothing is drawn
    found = next(e.data["message"] for e in events if e.kind == "finding" and e.data["kind"] == "held")
    assert found.startswith("2 of 8 photos are not trained on, to judge by: ")
    held = [
        p["name"] for p in json.loads((tmp_path / "whole/dataset.json").read_text())["photos"] if p["role"] == "held"
    ]
    assert len(held) == 2 and all(name in found for name in held)

    monkeypatch.setattr(watching, "ending", lambda rows, rule: None)
    cancel = train.Cancel()

    def stop_at_2(event: Event) -> None:
        if event.kind == "measured" and event.data["step"] == 2:
            cancel.set()

    run = tmp_path / "again/whole"
    stopped = train.run(config(photos, run), stop_at_2, cancel)
    assert stopped.status == "stopped"
    monkeypatch.setattr(watching, "ending", over_after(3))
    again = train.resume(run)
    assert again.step == 3
    name = "whole.safetensors"
    assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert (run / "measured.json").read_bytes() == (tmp_path / "whole/measured.json").read_bytes()


def test_what_a_kill_left_unmeasured_or_damaged_is_measured_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train.run(config(photos, tmp_path / "disc", steps=2, keep_state=True))
    measured = RunFolder(whole.run).measured
    before = measured.read_bytes()
    for damage in (b'{"rows": [{"step": "x"}]}', b"[1"):
        measured.write_bytes(damage)
        train.resume(whole.run)
        assert measured.read_bytes() == before


def test_too_few_photos_and_no_subject_are_told(tmp_path: Path) -> None:
    two = make_photos(tmp_path / "two", 2)
    with pytest.raises(MaquetteError, match=r"stop = auto measures photos that are not trained on, and .*two holds 2"):
        train.run(config(two, tmp_path / "run"))
    three = make_photos(tmp_path / "three", 3)
    values = {"photos": three, "out": tmp_path / "other", **SMALLEST}
    del values["subject"]
    with pytest.raises(MaquetteError, match=r"stop = auto needs to know the subject"):
        train.run(TrainConfig.parse(values))


def test_without_stop_auto_nothing_is_measured(photos: Path, tmp_path: Path) -> None:
    result = train.run(config(photos, tmp_path / "disc", steps=2, stop="never"))
    assert not RunFolder(result.run).measured.exists()
