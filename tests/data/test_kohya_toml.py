"""Kohya data set files: every key used or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.data.caption_options import CaptionOptions
from maquette.data.dataset import plan
from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError

MakeImage = Callable[..., Image.Image]
HEAD = '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "man"\n'


@pytest.fixture
def folder(quadrants: MakeImage, tmp_path: Path) -> Path:
    for name in ["man", "dog", "reg", "masks"]:
        (tmp_path / name).mkdir()
        quadrants(200, 100).save(tmp_path / name / "x.png")
    (tmp_path / "man" / "x.caption").write_text("ohwx man, hat")
    return tmp_path


def write(folder: Path, text: str) -> Path:
    (folder / "set.toml").write_text(text, encoding="utf-8")
    return folder / "set.toml"


def test_every_used_key(folder: Path) -> None:
    file = write(
        folder,
        """
        [general]
        shuffle_caption = true
        keep_tokens = 1
        caption_extension = "caption"
        flip_aug = true
        [[datasets]]
        resolution = [512, 512]
        batch_size = 4
        enable_bucket = true
        min_bucket_reso = 250
        max_bucket_reso = 768
        bucket_reso_steps = 32
        keep_tokens = 2
          [[datasets.subsets]]
          image_dir = "man"
          num_repeats = 40
          conditioning_data_dir = "masks"
          caption_prefix = "best,"
          caption_dropout_rate = 0.1
          [[datasets.subsets]]
          image_dir = "dog"
          class_tokens = "qrt dog"
          num_repeats = 7
          shuffle_caption = false
          keep_tokens = 3
          alpha_mask = true
          [[datasets.subsets]]
          image_dir = "reg"
          class_tokens = "man"
          is_reg = true
        """,
    )
    data = plan(read_folder(file), 512)
    assert data.layout == "toml"
    assert [(p.name, p.caption, p.repeats, p.role, p.subject) for p in data.photos] == [
        ("x.png", "ohwx man, hat", 40, "instance", ""),
        ("x.png", "a photo of qrt dog", 7, "instance", "qrt dog"),
        ("x.png", "a photo of a man", 1, "class", "man"),
    ]
    assert data.photos[0].options == CaptionOptions(prefix="best,", shuffle=True, keep_tokens=2, dropout=0.1)
    assert data.photos[1].options == CaptionOptions(keep_tokens=3)
    assert [p.mask for p in data.photos] == [folder / "masks" / "x.png", None, None]  # the dog's photo is opaque
    assert data.settings == {"resolution": 512, "batch_size": 4, "buckets": True, "flip": True}
    assert data.rules is not None and (data.rules.min_size, data.rules.max_size, data.rules.step) == (224, 768, 32)


def test_the_subject_names_subsets_without_class_tokens(folder: Path) -> None:
    file = write(folder, '[[datasets]]\n[[datasets.subsets]]\nimage_dir = "dog"\n')
    assert [p.caption for p in read_folder(file, "abc dog", repeats=3).photos] == ["a photo of abc dog"]
    assert read_folder(file, "abc dog", repeats=3).samples() == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "num_repeat = 3\n", r"dataset 1, subset 1: unknown key 'num_repeat'; did you mean 'num_repeats'\?"),
        (HEAD + "batch_size = 3\n", r"subset 1: unknown key 'batch_size'"),
        (HEAD + 'num_repeats = "3"\n', r"num_repeats = '3' should be of the kind int"),
        (HEAD + "num_repeats = true\n", r"num_repeats = True should be of the kind int"),
        (HEAD + "num_repeats = 0\n", r"num_repeats must be at least 1"),
        (HEAD + "random_crop = true\n", r"random_crop = True is not supported; cut the photos yourself"),
        (HEAD + "color_aug = true\n", r"color_aug = True is not supported"),
        (HEAD + "token_warmup_step = 5\n", r"token_warmup_step = 5 is not supported"),
        (HEAD + "cache_info = true\n", r"cache_info = True is not supported; leave it out"),
        ("[general]\nbucket_no_upscale = true\n" + HEAD, r"\[general\]: bucket_no_upscale = True is not supported"),
        ("[[datasets]]\nresolution = [512, 768]\n" + HEAD[13:], r"resolution = \[512, 768\] is not supported"),
        (
            "[[datasets]]\nresolution = 512\n[[datasets]]\nresolution = 768\n",
            r"dataset 2: resolution 768 differs from 512",
        ),
        (
            HEAD + "flip_aug = true\n[[datasets.subsets]]\nimage_dir = 'dog'\n",
            r"subset 2: flip False differs from True",
        ),
        (HEAD.replace("man", "mann"), r"dataset 1, subset 1: there is no mann"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2\n", "image_dir is missing"),
        (HEAD + "is_reg = true\n", "names no photos to learn"),
        ("[dataset]\n", r"unknown table 'dataset'; a data set file has"),
        ("[general]\n", r"has no \[\[datasets\]\]"),
        ("datasets = 3\n", r"datasets must be written as \[\[datasets\]\]"),
        ("[[datasets]\n", r"set\.toml is not valid TOML"),
    ],
)
def test_faults_name_file_place_and_key(folder: Path, text: str, message: str) -> None:
    with pytest.raises(MaquetteError, match=message):
        read_folder(write(folder, text))


def test_refused_keys_that_ask_for_nothing_are_fine(folder: Path) -> None:
    file = write(folder, "[general]\nrandom_crop = false\ntoken_warmup_min = 1\nvalidation_split = 0.0\n" + HEAD)
    assert [p.caption for p in read_folder(file).photos] == ["ohwx man, hat"]


def test_metadata_subset(folder: Path) -> None:
    (folder / "dog" / "meta.json").write_text('{"x": {"caption": "qrt dog on grass"}}')
    file = write(folder, '[[datasets]]\n[[datasets.subsets]]\nmetadata_file = "dog/meta.json"\nnum_repeats = 2\n')
    assert [(p.caption, p.repeats) for p in read_folder(file).photos] == [("qrt dog on grass", 2)]
