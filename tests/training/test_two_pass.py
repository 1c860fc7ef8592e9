"""Two passes: which photos each sees, for how many steps, and how it goes on after a stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from maquette.config import TrainConfig
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.stages import train
from maquette.training import optim, two_pass
from maquette.training.two_pass import Found, first_passes, second_pass
from tests.training.interrupted import make_photos

SMALLEST = {
    "subject": "zkw disc", "sample_prompts": [], "batch_size": 1, "rank": 2, "dtype": "fp32", "steps": 4,
    "save_every_steps": 2, "two_pass": True,
}  # fmt: skip


def config(photos: Path, **changes: Any) -> TrainConfig:
    return TrainConfig.parse({"photos": photos, **SMALLEST, **changes})


def test_few_photos_are_held_out_in_turn_and_many_once(tmp_path: Path) -> None:
    few = make_photos(tmp_path / "few", 5)
    passes = first_passes(config(few), read_folder(few, "zkw disc"), tmp_path / "runs/disc")
    assert [(p.fold, p.held_out, p.out) for p in passes] == [
        (i, 1, tmp_path / f"runs/disc-first-{i + 1}") for i in range(3)
    ]
    many = make_photos(tmp_path / "many", 14)
    (one,) = first_passes(config(many, stop="auto"), read_folder(many, "zkw disc"), tmp_path / "runs/disc")
    assert (one.fold, one.held_out, one.stop, one.two_pass) == (0, 3, "auto", False)
    assert one.out == tmp_path / "runs/disc-first"


def test_the_second_pass_shows_each_photo_as_often_and_its_rate_falls_as_in_the_whole_run(tmp_path: Path) -> None:
    second = second_pass(config(tmp_path, stop="auto"), [Found(120, 0.85, 300, 11, 14)], tmp_path / "disc")
    assert (second.steps, second.schedule_steps, second.preferred_weight) == (153, 382, 0.85)
    assert (second.held_out, second.stop, second.two_pass, second.choose) == (0, "never", False, False)
    assert optim.lr_multiplier(second, 191, 153) == pytest.approx(0.5)
    constant = second_pass(
        config(tmp_path, lr_scheduler="constant"), [Found(120, None, 300, 11, 14)], tmp_path / "disc"
    )
    assert (constant.steps, constant.schedule_steps, constant.preferred_weight) == (153, None, None)


def test_of_several_first_passes_the_median_counts(tmp_path: Path) -> None:
    found = [Found(400, 1.0, 500, 4, 5), Found(80, 0.7, 500, 4, 5), Found(120, 0.7, 500, 4, 5)]
    second = second_pass(config(tmp_path), found, tmp_path / "disc")
    assert (second.steps, second.preferred_weight) == (150, 0.7)


def test_both_passes_run_and_a_stopped_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pass is too short to be judged at its end, so it is evaluated; here with a verdict of its own."""
    from maquette.stages import two_pass as stage

    photos, out = make_photos(tmp_path / "photos", 7), tmp_path / "runs/disc"

    def found(folder: Any, on_event: Any) -> Found:
        roles = [photo["role"] for photo in json.loads(folder.dataset.read_text())["photos"]]
        return Found(2, 0.7, 4, roles.count("instance"), len(roles))

    monkeypatch.setattr(stage, "_found", found)
    cancel, events = train.Cancel(), list[Event]()

    def stop_early(event: Event) -> None:
        events.append(event)
        if event.kind == "saved" and event.data["step"] == 2:
            cancel.set()

    stopped = train.run(config(photos, out=out), stop_early, cancel)
    assert (stopped.status, stopped.run) == ("stopped", f"{out}-first")
    assert "done" not in {event.kind for event in events}
    result = train.run(config(photos, out=out))
    assert (result.status, result.run, result.step, result.weight) == ("finished", str(out), 2, 0.7)
    assert result.reasons[0] == (
        "First pass: the best step is 2 on 6 of 7 photos at weight 0.7. So all 7 are trained for 2 steps."
    )
    assert json.loads((out / "disc.json").read_text())["preferred weight"] == 0.7
    roles = [photo["role"] for photo in json.loads((out / "dataset.json").read_text())["photos"]]
    assert roles == ["instance"] * 7  # all are given back
    with pytest.raises(MaquetteError, match=r"first pass with other settings \(rank = 2, not 4\)"):
        train.run(config(photos, out=out, rank=4))


def test_a_first_pass_that_was_killed_while_it_was_evaluated_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its training has finished and left no state."""
    from maquette.stages import two_pass as stage

    photos, out = make_photos(tmp_path / "photos", 7), tmp_path / "runs/disc"

    def killed(folder: Any, on_event: Any) -> Found:
        raise InterruptedError

    with monkeypatch.context() as patch, pytest.raises(InterruptedError):
        patch.setattr(stage, "_found", killed)
        train.run(config(photos, out=out))
    first = out.with_name("disc-first")
    assert (first / "disc-first.safetensors").exists() and not (first / "evaluation.json").exists()
    monkeypatch.setattr(stage, "_found", lambda *_: Found(2, 0.7, 4, 6, 7))
    assert train.run(config(photos, out=out)).status == "finished"


def test_two_photos_are_too_few(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    with pytest.raises(MaquetteError, match=r"two_pass measures photos that are not trained on, and .* holds 2"):
        train.run(config(photos, out=tmp_path / "disc"))


def test_two_pass_and_several_processes_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MaquetteError, match="two_pass trains in one process alone"):
        train.run(config(make_photos(tmp_path / "photos", 3)))


def test_a_fold_without_photos_held_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match="fold says which photos are held out: give held_out"):
        TrainConfig.parse({"photos": tmp_path, "fold": 1})
    assert two_pass.FOLDS == 3
