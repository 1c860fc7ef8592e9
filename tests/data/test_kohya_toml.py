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
        random_crop = true
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
    assert data.settings == {"resolution": 512, "batch_size": 4, "buckets": True, "flip": True, "random_crop": True}
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
        (HEAD + "face_crop_aug_range = [1, 2]\n", r"face_crop_aug_range = \[1, 2\] is not supported; cut the photos"),
        (HEAD + "color_aug = true\n", r"color_aug = True is not supported"),
        (HEAD + "token_warmup_step = 5\n", r"token_warmup_step = 5 is not supported"),
        (HEAD + "cache_info = true\n", r"cache_info = True is not supported; leave it out"),
        ("[general]\nbucket_no_upscale = 1\n" + HEAD, r"\[general\]: bucket_no_upscale = 1 should be of the kind bool"),
        (
            "[[datasets]]\nresolution = [512, 700]\n",
            r"resolution = \[512, 700\] should be a number or \[width, height\]",
        ),
        ("[[datasets]]\nresolution = 0\n", r"resolution = 0 should be a number or"),
        ("[[datasets]]\nbucket_reso_steps = 0\n", r"bucket_reso_steps = 0 should be at least 1"),
        (
            "[[datasets]]\nbatch_size = 2\n[[datasets]]\nbatch_size = 3\n",
            r"dataset 2: batch_size 3 differs from 2 before",
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
    file = write(folder, "[general]\ncolor_aug = false\ntoken_warmup_min = 1\nvalidation_split = 0.0\n" + HEAD)
    assert [p.caption for p in read_folder(file).photos] == ["ohwx man, hat"]


def test_metadata_subset(folder: Path) -> None:
    (folder / "dog" / "meta.json").write_text('{"x": {"caption": "qrt dog on grass"}}')
    file = write(folder, '[[datasets]]\n[[datasets.subsets]]\nmetadata_file = "dog/meta.json"\nnum_repeats = 2\n')
    assert [(p.caption, p.repeats) for p in read_folder(file).photos] == [("qrt dog on grass", 2)]


SHAPES = """
[general]
enable_bucket = true
[[datasets]]
resolution = 512
  [[datasets.subsets]]
  image_dir = "man"
[[datasets]]
resolution = [512, 768]
enable_bucket = false
  [[datasets.subsets]]
  image_dir = "dog"
  class_tokens = "qrt dog"
[[datasets]]
resolution = 768
min_bucket_reso = 512
max_bucket_reso = 1024
bucket_no_upscale = true
  [[datasets.subsets]]
  image_dir = "reg"
  class_tokens = "cat"
"""


def test_each_dataset_has_its_own_resolution_and_rules(folder: Path, quadrants: MakeImage) -> None:
    for name, size in [("man", (1000, 500)), ("dog", (1000, 500)), ("reg", (300, 200))]:
        quadrants(*size).save(folder / name / "x.png")
    found = read_folder(write(folder, SHAPES))
    assert found.settings["resolution"] == 768 and found.settings["buckets"] is True
    data = plan(found, 768)
    # 2 : 1 at the area of 512 x 512; the fixed shape; whole steps of a small photo, which is not enlarged
    assert [photo.bucket for photo in data.photos] == [(704, 320), (512, 768), (256, 192)]
    assert [round(p.crop.enlargement, 2) for p in data.photos if p.crop] == [0.7, 1.54, 0.96]
    # another resolution or no buckets, asked for by the run, hold for all
    assert [photo.bucket for photo in plan(found, 256).photos] == [(352, 160), (352, 160), (256, 192)]
    assert {photo.bucket for photo in plan(found, 768, aspect_buckets=False).photos} == {(768, 768)}


def test_no_upscale_of_the_run(quadrants: MakeImage, tmp_path: Path) -> None:
    for name, size in [("small.png", (300, 200)), ("tiny.png", (300, 50)), ("large.png", (2000, 1000))]:
        quadrants(*size).save(tmp_path / name)
    data = plan(read_folder(tmp_path, "ohwx man"), 512, no_upscale=True)
    assert {photo.name: photo.bucket for photo in data.photos} == {"large.png": (704, 320), "small.png": (256, 192)}
    (problem,) = data.left_out
    assert problem.message == (
        "tiny.png is too small: 300 x 50 pixels fill no bucket without being enlarged; use the original photo."
    )
