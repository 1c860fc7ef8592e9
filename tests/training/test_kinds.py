"""kind: class word, captions and sample prompts."""

from __future__ import annotations

from pathlib import Path

import pytest

from maquette.config import TrainConfig
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError
from maquette.families import load
from maquette.families.sd.spec import SD1
from maquette.training.defaults import sample_prompts
from maquette.training.photos import read_photos
from tests.training.interrupted import make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = make_photos(tmp_path / "photos")
    for text in folder.glob("*.txt"):
        text.unlink()
    return folder


@pytest.mark.parametrize(
    ("subject", "kind", "expected"),
    [
        ("ohwx", "person", "ohwx person"),
        ("ohwx man", "person", "ohwx man"),
        ("zkw", "style", "zkw style"),
        ("zkw", None, "zkw"),
    ],
)
def test_a_rare_word_alone_gets_its_class(subject: str, kind: str | None, expected: str) -> None:
    config = TrainConfig.parse({"photos": "x", "subject": subject, "kind": kind})
    assert config.subject == expected
    assert TrainConfig.parse(config.model_dump()).subject == expected  # as a resumed run reads it


def test_photos_of_a_style_are_pictures_in_it(photos: Path) -> None:
    base = load("pocket")
    for kind, caption in (("style", "a picture, zkw style"), ("object", "a photo of zkw object")):
        config = TrainConfig.parse({"photos": photos, "subject": "zkw", "kind": kind})
        dataset, *_ = read_photos(config, base, lambda *_: None)
        assert {photo.caption for photo in dataset.photos} == {caption}


def test_sample_prompts_suit_the_kind(photos: Path) -> None:
    dataset = read_folder(photos, "zkw man")

    def asked(kind: str | None) -> list[str]:
        return sample_prompts(TrainConfig.parse({"photos": photos, "subject": "zkw man", "kind": kind}), SD1, dataset)

    assert "a photo of zkw man wearing a red hat" in asked("person")
    assert asked(None) == asked("object") and "a photo of zkw man on a beach" in asked(None)
    assert asked("style")[0] == "a cat, zkw man" and asked("style")[-1] == "a cat"


def test_an_unknown_kind_names_the_known() -> None:
    with pytest.raises(MaquetteError, match=r"kind.*person.*animal.*object.*style"):
        TrainConfig.parse({"photos": "x", "kind": "place"})
