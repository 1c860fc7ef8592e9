"""Whose face is drawn: measures on pictures of known people, and `maquette evaluate --faces` from end to end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

import maquette
from maquette import MaquetteError
from maquette.data.faces import FaceReader
from maquette.evaluation import faces
from maquette.evaluation.choice import Row
from maquette.evaluation.example import Example
from maquette.evaluation.faces import STRANGERS, FaceJudge, sentence
from tests.data.people import cat, stranger, woman
from tests.training.interrupted import SETTINGS, make_photos


def pixels(*pictures: Image.Image) -> Tensor:
    """(B, 3, 256, 256) in [0, 1]."""
    arrays = [np.asarray(picture.convert("RGB").resize((256, 256))) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 255


def portraits() -> list[Image.Image]:
    face = woman().crop((100, 0, 340, 240))
    return [face, face.rotate(8), ImageEnhance.Brightness(face).enhance(0.7), face.crop((10, 10, 230, 230))]


@pytest.fixture(scope="module")
def judge() -> FaceJudge:
    pictures = pixels(*portraits(), cat())
    return FaceJudge([Example(picture * 2 - 1, "a photo of ohwx woman") for picture in pictures], FaceReader(320))


def test_the_same_person_another_one_and_no_face(judge: FaceJudge) -> None:
    assert len(judge.photos) == 4
    found = judge(pixels(ImageOps.mirror(portraits()[0]), stranger(), cat()))
    assert found["face_found"] == [1.0, 1.0, 0.0]
    assert found["same_person"] == [1.0, 0.0]
    own, other = found["face_likeness"]
    assert own > 0.7 and other < 0.2


def test_likeness_is_0_at_what_the_base_draws_of_the_class_and_1_among_the_photos(judge: FaceJudge) -> None:
    assert float(judge.of_class.mean()) == STRANGERS
    judge.look_at_class(pixels(cat()))
    assert float(judge.of_class.mean()) == STRANGERS  # the base drew no face: strangers' distance stays
    judge.look_at_class(pixels(stranger()))
    assert judge(pixels(stranger()))["face_likeness"] == pytest.approx([0.0], abs=1e-6)
    among = judge.among.sum() / 12
    faces = judge(pixels(*portraits()))["face_likeness"]
    assert np.mean(faces) == pytest.approx(
        float((judge.of_class.mean() - among * 3 / 4) / (judge.of_class.mean() - among)), abs=0.1
    )


def test_pictures_without_a_face_are_counted_apart(judge: FaceJudge) -> None:
    assert judge(pixels(cat())) == {"face_found": [0.0], "face_likeness": [0.0], "same_person": [0.0]}


def test_the_sentence_counts() -> None:
    items = {"face_found": [1.0, 1.0, 0.0, 1.0], "same_person": [1.0, 0.0, 1.0], "face_likeness": [0.9, 0.1, 0.8]}
    assert sentence(Row.of(100, 1.0, items)) == (
        "Of 4 drawn pictures 3 show a face; 2 of these pass for the person of the photos, likeness 0.60 (1: the photos "
        "among themselves)."
    )
    none = {"face_found": [0.0, 0.0], "same_person": [0.0], "face_likeness": [0.0]}
    assert sentence(Row.of(100, 1.0, none)) == "None of the 2 drawn pictures shows a face that can be recognised."
    assert sentence(Row.of(100, 1.0, {"likeness": [0.5]})) is None


def test_photos_without_a_person_are_refused() -> None:
    with pytest.raises(MaquetteError, match="found in 0 of the 3 photos and two are needed; leave --faces out"):
        FaceJudge(
            [Example(picture * 2 - 1, "a photo of ohwx cat") for picture in pixels(cat(), cat(), cat())],
            FaceReader(320),
        )


@pytest.mark.heavy
def test_evaluate_measures_faces_beside_the_rest(tmp_path: Path) -> None:
    """On pocket, trained for two steps: it draws no face, which is said, and the choice is as without."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for i, picture in enumerate(portraits()):
        picture.resize((64, 64)).save(photos / f"{i}.png")
    settings = {
        **SETTINGS,
        "subject": "ohwx woman",
        "sample_prompts": [],
        "steps": 2,
        "save_every_steps": 1,
        "keep_last": 0,
    }
    run = maquette.train(photos, out=tmp_path / "run", **settings).run  # type: ignore[arg-type]
    plain = maquette.evaluate(run, quick=True)
    found = maquette.evaluate(run, quick=True, faces=True)
    assert (found.step, found.weight) == (plain.step, plain.weight)
    assert all({"face_found", "face_likeness", "same_person"} <= row.keys() for row in found.rows)
    assert any("drawn pictures" in reason and "face" in reason for reason in found.reasons)
    assert "Pictures with a face" in (Path(run) / "report.html").read_text()


def test_a_run_on_no_person_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faces, "FaceReader", lambda: FaceReader(320))  # in less time than at 800 pixels
    make_photos(tmp_path / "photos", 2)
    settings = {**SETTINGS, "sample_prompts": [], "steps": 2, "save_every_steps": 1, "keep_last": 0}
    run = maquette.train(tmp_path / "photos", out=tmp_path / "run", **settings).run  # type: ignore[arg-type]
    with pytest.raises(MaquetteError, match=r"found in 0 of the 2 photos"):
        maquette.evaluate(run, quick=True, faces=True)
