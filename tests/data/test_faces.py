"""Faces in photos: found, told apart, and planted faults named, each and only those."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import maquette
from maquette import MaquetteError
from maquette.data.buckets import crop_box
from maquette.data.dataset import Problem
from maquette.data.faces import (
    SAME_PERSON,
    Face,
    FaceReader,
    distances,
    faces_of_one_person,
    head_and_shoulders,
    trained_share,
)
from maquette.stages import check as check_stage
from tests.data.people import cat, stranger, woman


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader(400)


def face(*identity: float, box: tuple[int, int, int, int] = (0, 0, 10, 10)) -> Face:
    return Face(box, np.array([*identity, *[0.0] * (128 - len(identity))]))


def test_a_face_is_found_where_it_is_and_in_no_cat(reader: FaceReader) -> None:
    (found,) = reader.faces(woman())
    left, top, right, bottom = found.box
    assert left < 180 < 250 < right and top < 90 < 150 < bottom and 70 < found.height < 120
    (quick,) = reader.faces(woman(), quick=True)
    assert abs(quick.box[0] - left) < 40 and abs(quick.box[3] - bottom) < 40
    assert reader.faces(cat()) == [] and reader.faces(cat(), quick=True) == []


def test_one_person_is_nearer_than_another(reader: FaceReader) -> None:
    whole = reader.faces(woman())
    altered = [ImageOps.mirror(woman()), ImageEnhance.Brightness(woman()).enhance(0.6), woman().resize((200, 200))]
    for picture in altered:
        assert distances(reader.faces(picture), whole)[0, 0] < 0.4 < SAME_PERSON
    for which in (0, 5):
        assert distances(reader.faces(stranger(which)), whole)[0, 0] > SAME_PERSON


def test_the_person_is_who_is_on_most_pictures() -> None:
    """Two people, one on three pictures; a face of neither; a picture without any."""
    a, also_a, b, other = face(0.0), face(0.3), face(2.0), face(0.0, 5.0)
    found = faces_of_one_person([[a], [b, also_a], [], [b], [face(0.1)], [other]])
    assert found[0] is a and found[1] is also_a and found[2:4] == [None, None] and found[5] is None
    assert found[4] is not None
    assert faces_of_one_person([[], []]) == [None, None]
    assert distances([], [a]).shape == (0, 1)


def test_the_proposed_part_is_a_square_around_the_face_within_the_photo() -> None:
    crop = crop_box((1600, 1200), (512, 512))
    small = face(0.0, box=(100, 20, 180, 100))
    assert trained_share(small, crop) is None  # the square in the middle begins at 200
    assert head_and_shoulders(small, (1600, 1200)) == (20, 0, 260, 240)
    inside = face(0.0, box=(700, 500, 780, 580))
    assert trained_share(inside, crop) == pytest.approx(80 / 1200)
    assert head_and_shoulders(inside, (1600, 1200)) == (620, 432, 860, 672)
    assert head_and_shoulders(face(0.0, box=(100, 100, 700, 700)), (900, 800)) == (0, 0, 800, 800)


PLANTED = {"cat.png": "no_face", "far.png": "small_face", "other.png": "other_person", "two.png": "faces"}


def faults_of(folder: Path) -> dict[str, Problem]:
    """What `check --faces` says of faces, by photo; without the option it says nothing of them."""
    kinds = ("no_face", "small_face", "other_person", "faces")
    found, plain = (maquette.check(folder, subject="ohwx woman", faces=faces).problems for faces in (True, False))
    assert not [problem for problem in plain if problem.kind in kinds]
    return {problem.photo: problem for problem in found if problem.kind in kinds}


def told(found: dict[str, Problem]) -> None:
    assert {name: problem.kind for name, problem in found.items()} == PLANTED
    assert "shows 2 faces; cut it to " in found["two.png"].message
    assert "fills " in found["far.png"].message and "cut it to " in found["far.png"].message


def test_check_names_planted_faults_and_only_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a reader that knows whose faces each picture shows, by its size."""
    own, stranger = face(0.0, box=(150, 100, 350, 300)), face(5.0, box=(150, 100, 350, 300))
    small = face(0.3, box=(1000, 300, 1130, 430))
    shown = {
        "a": (500, [own]), "b": (510, [own]), "cat": (520, []), "far": (1600, [small]), "other": (530, [stranger]),
        "two": (540, [own, stranger]),
    }  # fmt: skip
    for name, (side, _) in shown.items():
        Image.effect_noise((side, side), 60).convert("RGB").save(tmp_path / f"{name}.png")
    by_side = dict(shown.values())
    monkeypatch.setattr(check_stage, "FaceReader", lambda: SimpleNamespace(faces=lambda image: by_side[image.width]))
    told(faults_of(tmp_path))


@pytest.mark.heavy
def test_check_names_planted_faults_in_pictures_of_people(tmp_path: Path) -> None:
    far = Image.new("RGB", (1600, 1600), (100, 120, 90))
    far.paste(woman().resize((700, 700)), (800, 200))
    two = Image.new("RGB", (1000, 1000), (90, 90, 90))
    two.paste(woman(), (0, 200))
    two.paste(stranger(), (488, 200))
    pictures = {
        "a": woman(), "b": woman().rotate(8), "c": ImageEnhance.Brightness(woman()).enhance(0.8),
        "cat": cat().resize((512, 512)), "far": far, "other": stranger(), "two": two,
    }  # fmt: skip
    for name, picture in pictures.items():
        picture.save(tmp_path / f"{name}.png")
    told(faults_of(tmp_path))


def test_without_the_packages_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return None if name == "dlib" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    woman().save(tmp_path / "a.png")
    with pytest.raises(MaquetteError, match=r"pip install 'maquette-lora\[faces\]'"):
        maquette.check(tmp_path, subject="ohwx woman", faces=True)
