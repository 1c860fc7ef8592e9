"""Photos that are held out from training."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maquette.config import TrainConfig
from maquette.data.dataset import hold_out
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.training.photos import read_photos
from maquette.training.verdicts import examples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        Image.fromarray(np.full((64, 64, 3), 40 * i, np.uint8)).save(tmp_path / f"{i}.png")
    return tmp_path


def test_the_seed_draws_which_and_the_others_are_trained_on(folder: Path) -> None:
    dataset = read_folder(folder, "zkw disc")
    one, again, other = (hold_out(dataset, 2, seed) for seed in (0, 0, 1))
    assert len(one.of("held")) == 2 and len(one.of("instance")) == 4 and one.samples("instance") == 4
    assert [p.name for p in one.of("held")] == [p.name for p in again.of("held")]
    assert [p.name for p in one.of("held")] != [p.name for p in other.of("held")]
    assert [p.name for p in one.photos] == [p.name for p in dataset.photos]


def test_something_must_be_left(folder: Path) -> None:
    with pytest.raises(MaquetteError, match=r"held_out = 6 leaves nothing to train on: .* holds 6 photos"):
        hold_out(read_folder(folder, "zkw disc"), 6, 0)


def test_the_verdict_sees_which_were_held_out(folder: Path) -> None:
    base = load("pocket")
    config = TrainConfig.parse({"photos": folder, "subject": "zkw disc", "held_out": 2, "seed": 3})
    dataset, *_ = read_photos(config, base, lambda what, done, of: None)
    held = {photo.name for photo in dataset.of("held")}
    assert len(held) == 2
    assert {example.name for example in examples(dataset, base) if example.held} == held


def test_folds_hold_out_other_photos(folder: Path) -> None:
    dataset = read_folder(folder, "zkw disc")
    folds = [{photo.name for photo in hold_out(dataset, 2, 0, fold).of("held")} for fold in range(3)]
    assert sorted(name for fold in folds for name in fold) == sorted(photo.name for photo in dataset.photos)
    assert folds[0] == {photo.name for photo in hold_out(dataset, 2, 0).of("held")}
    with pytest.raises(MaquetteError, match=r"fold = 3: .* has no 4 times 2 photos to hold out"):
        hold_out(dataset, 2, 0, 3)
