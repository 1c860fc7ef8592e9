"""Kohya data set files: every key used or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.data.buckets import plan
from maquette.data.caption_options import CaptionOptions
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
        ("x.png", "qrt dog", 7, "instance", "qrt dog"),
        ("x.png", "man", 1, "class", "man"),
    ]
    assert data.photos[0].options == CaptionOptions(prefix="best,", shuffle=True, keep_tokens=2, dropout=0.1)
    assert data.photos[1].options == CaptionOptions(keep_tokens=3)
    assert [p.mask for p in data.photos] == [folder / "masks" / "x.png", None, None]  # the dog's photo is opaque
    assert data.settings == {"resolution": 512, "batch_size": 4, "buckets": True, "flip_aug": True, "random_crop": True}
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
            r"subset 2: flip_aug False differs from True",
        ),
        (HEAD.replace("man", "mann"), r"dataset 1, subset 1: there is no mann"),
        ("[[datasets]]\n[[datasets.subsets]]\nnum_repeats = 2\n", "image_dir is missing"),
        (HEAD + "is_reg = true\n", "names no photos to learn"),
        ("[dataset]\n", r"unknown table 'dataset'; a data set file has"),
        ("[general]\n", r"has no \[\[datasets\]\]"),
        ("datasets = 3\n", r"datasets must be written as \[\[datasets\]\]"),
        ("[[datasets]\n", r"set\.toml is not valid TOML"),
        (HEAD + "num_repeats = 1000000000\n", r"1000000000 samples per epoch, more than anyone trains.*x\.png has 10"),
        (HEAD + "num_repeats = " + "9" * 5000, r"set\.toml has a number that is too large"),
        (HEAD + "num_repeats = " + "9" * 30, r"set\.toml has a number that is too large"),
        (HEAD + "caption_dropout_rate = 1e999\n", r"set\.toml has a number that is too large \(inf\)"),
        (HEAD + "caption_dropout_rate = 1.5\n", r"caption_dropout_rate = 1\.5 should be a share, from 0 to 1"),
        (HEAD + "keep_tokens = -1\n", r"keep_tokens = -1 should not be negative"),
        (HEAD + "x = " + "[" * 5000, r"set\.toml is nested too deep \(30 levels at most\)"),
        ("a." * 100_000 + "b = 1\n", r"set\.toml is nested too deep \(30 levels at most\)"),
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


LIMITS = [  # what sd-scripts answers
    ({"resolution": 1024}, (3000, 700), (1024, 256)),
    ({"resolution": 1024}, (900, 1600), (576, 1024)),
    ({"resolution": 640}, (1920, 1080), (832, 448)),
    ({"resolution": 512, "max_bucket_reso": 1000}, (3000, 700), (1024, 256)),
    ({"resolution": 512, "max_bucket_reso": 900, "min_bucket_reso": 200}, (700, 3000), (192, 960)),
    ({"resolution": 512, "max_bucket_reso": 900, "min_bucket_reso": 200}, (3000, 700), (960, 256)),
    ({"resolution": 768, "max_bucket_reso": 1500, "min_bucket_reso": 300}, (3000, 700), (1536, 384)),
    ({"resolution": 1024, "bucket_reso_steps": 32}, (700, 3000), (256, 1024)),
]


@pytest.mark.parametrize(("dataset", "size", "bucket"), LIMITS)
def test_bucket_limits_are_those_of_sd_scripts(
    folder: Path, dataset: dict[str, int], size: tuple[int, int], bucket: tuple[int, int]
) -> None:
    Image.new("RGB", size, (9, 99, 50)).save(folder / "man" / "x.png")
    keys = "".join(f"{key} = {value}\n" for key, value in dataset.items())
    file = write(folder, f"[[datasets]]\nenable_bucket = true\n{keys}" + HEAD.removeprefix("[[datasets]]\n"))
    found = read_folder(file)
    assert [photo.bucket for photo in plan(found, dataset["resolution"], 8).photos] == [bucket]


def test_limits_that_nobody_wrote_hold_for_the_resolutions_they_fit(folder: Path) -> None:
    found = read_folder(write(folder, "[[datasets]]\nenable_bucket = true\nresolution = 64\n" + HEAD[13:]))
    assert [photo.bucket for photo in plan(found, 64, 4).photos] == [(80, 48)]  # pocket's own rules


@pytest.mark.parametrize(
    ("text", "keys", "caption"),
    [
        ("first line, tag\nsecond line, tag2", 'class_tokens = "ohwx man"', "first line, tag"),
        ("  spaced first \nother", "", "spaced first"),
        ("one\ntwo", "enable_wildcard = true", "one\ntwo"),
        (None, 'class_tokens = "man, solo, outdoors"', "man, solo, outdoors"),
        (None, 'class_tokens = "ohwx_dog"', "ohwx_dog"),
    ],
)
def test_captions_are_those_of_sd_scripts(folder: Path, text: str | None, keys: str, caption: str) -> None:
    (folder / "man" / "x.caption").unlink()
    if text is not None:
        (folder / "man" / "x.txt").write_text(text)
    data = read_folder(write(folder, HEAD + keys + "\n"))
    assert [photo.caption for photo in data.photos] == [caption]
    told = [p.message for p in data.problems if p.kind == "lines"]
    assert told == (
        [
            "1 captions of several lines (the first x.txt) are read to the end of their first line, as Kohya's trainer "
            "does; with caption_wildcards (enable_wildcard) each line is a caption of its own."
        ]
        if text and "wildcard" not in keys
        else []
    )


def test_the_caption_extension_decides_and_what_it_hides_is_named(folder: Path) -> None:
    (folder / "man" / "x.txt").write_text("from txt")
    (folder / "man" / "x.tags").write_text("from tags")
    read = read_folder(write(folder, HEAD))
    assert [p.caption_source for p in read.photos] == ["x.caption"]  # sd-scripts' own default comes first
    assert [p.message for p in read.problems] == [
        "1 caption (x.txt) is not read: a photo's .caption file comes first.",
        "1 .tags text (x.tags) is not read: captions are .caption and .txt files here; rename them.",
    ]
    read = read_folder(write(folder, HEAD + 'caption_extension = ".tags"\n'))
    assert [p.caption for p in read.photos] == ["from tags"]
    assert [p.message for p in read.problems] == [
        "1 .caption text (x.caption) is not read: captions are .tags files here; rename them.",
        "1 .txt text (x.txt) is not read: captions are .tags files here; rename them.",
    ]


def test_sub_folders_are_not_searched_and_masks_found(folder: Path, quadrants: MakeImage) -> None:
    for name in ("man/sub/deep", "man/masks"):
        (folder / name).mkdir(parents=True)
        quadrants(200, 100).convert("L").save(folder / name / "x.png")
    data = read_folder(write(folder, HEAD))
    assert [(p.name, p.mask) for p in data.photos] == [("x.png", folder / "man" / "masks" / "x.png")]
    assert [p.message for p in data.problems] == [
        "1 photo in 'man/sub' left out: Kohya's folders and data set files are not searched below, there as here; "
        "move them up."
    ]
