"""Plain folders and Kohya's: what is used, with which caption and repeats, and that nothing is lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.data.layouts import read_folder, require_trainable
from maquette.errors import MaquetteError

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def photo(quadrants: MakeImage, tmp_path: Path) -> Callable[..., Path]:
    """photo("sub/a.jpg", "caption") writes a photo (and its caption) below tmp_path."""

    def make(name: str, caption: str | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        quadrants().save(path)
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")
        return path

    return make


def test_plain_folder(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg", "a photo of zkw robot on a beach")
    photo("sub folder/ünïcode.PNG")
    (tmp_path / "b.txt").write_text("an orphan")
    (tmp_path / "scan.tiff").write_bytes(b"II*\0")
    data = read_folder(tmp_path, "zkw robot", repeats=7)
    assert [(p.name, p.caption, p.caption_source, p.repeats, p.role) for p in data.photos] == [
        ("a.jpg", "a photo of zkw robot on a beach", "a.txt", 7, "instance"),
        ("sub folder/ünïcode.PNG", "a photo of zkw robot", "subject", 7, "instance"),
    ]
    assert data.samples() == 14 and data.layout == "plain"
    assert [(p.photo, p.left_out) for p in data.problems] == [("b.txt", False), ("scan.tiff", True)]
    assert "there is no photo of that name" in data.problems[0].message


def test_fault_folder_names_the_bad_and_keeps_the_good(fault_folder: Path) -> None:
    data = read_folder(fault_folder, "zkw robot")
    assert {p.name for p in data.photos} == {"good.JPG", "cmyk.jpg", "sixteen.png", "palette.png", "turned.jpg"}
    assert {p.size for p in data.photos} == {(80, 60)}  # turned.jpg too
    assert {p.photo: p.message.split(" ", 1)[1].split(";")[0].split(".")[0] for p in data.left_out} == {
        "truncated.jpg": "is damaged and cannot be decoded (the file is cut off)",
        "empty.png": "is empty (0 bytes)",
        "notes.jpg": "is not a picture: it holds text",
        "moving.gif": "is an animated GIF",
    }


def test_kohya_folders_with_reg(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("train/40_ohwx man/a.jpg")
    photo("train/40_ohwx man/b.jpg", "ohwx man smiling")
    photo("train/10_qrt dog/c.jpg")
    photo("reg/1_man/r.jpg")
    data = read_folder(tmp_path / "train", reg=tmp_path / "reg")
    assert data.layout == "kohya"
    assert [(p.name, p.caption, p.repeats, p.role, p.subject) for p in data.photos] == [
        ("10_qrt dog/c.jpg", "a photo of qrt dog", 10, "instance", "qrt dog"),
        ("40_ohwx man/a.jpg", "a photo of ohwx man", 40, "instance", "ohwx man"),
        ("40_ohwx man/b.jpg", "ohwx man smiling", 40, "instance", "ohwx man"),
        ("1_man/r.jpg", "a photo of a man", 1, "class", "man"),
    ]
    assert (data.samples(), data.samples("class")) == (90, 1)


def test_project_folder_of_the_kohya_gui_brings_its_reg_folder(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("img/40_ohwx man/a.jpg")
    photo("reg/1_man/r.jpg")
    (tmp_path / "log").mkdir()
    (tmp_path / "model").mkdir()
    data = read_folder(tmp_path)
    assert [(p.name, p.repeats, p.role) for p in data.photos] == [
        ("40_ohwx man/a.jpg", 40, "instance"),
        ("1_man/r.jpg", 1, "class"),
    ]


def test_pointing_at_the_leaf_folder_works_for_both_kinds(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("40_ohwx man/a.jpg")
    photo("1_man/r.jpg")
    data = read_folder(tmp_path / "40_ohwx man", reg=tmp_path / "1_man")
    assert [(p.caption, p.repeats, p.role) for p in data.photos] == [
        ("a photo of ohwx man", 40, "instance"),
        ("a photo of a man", 1, "class"),
    ]


def test_plain_reg_folder_takes_the_class_from_the_subject(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("p/a.jpg")
    photo("r/x.jpg")
    data = read_folder(tmp_path / "p", "ohwx man", reg=tmp_path / "r", repeats=5)
    assert [(p.caption, p.repeats) for p in data.photos] == [("a photo of ohwx man", 5), ("a photo of a man", 1)]


def test_what_lies_beside_kohya_folders_is_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("40_ohwx man/a.jpg")
    photo("stray.jpg")
    photo("more of him/b.jpg")
    photo("0_off/c.jpg")
    data = read_folder(tmp_path)
    assert [p.name for p in data.photos] == ["40_ohwx man/a.jpg"]
    assert sorted(p.photo for p in data.left_out) == ["0_off", "more of him", "stray.jpg"]
    assert any("rename it to '40_more of him'" in p.message for p in data.left_out)


def test_a_year_is_not_a_repeat_count(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("2024_holiday/a.jpg")
    photo("2025_winter/b.jpg")
    data = read_folder(tmp_path, "ohwx man")
    assert data.layout == "plain" and [p.repeats for p in data.photos] == [1, 1]


def test_subject_against_several_kohya_folders_is_reported(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("40_ohwx man/a.jpg")
    photo("40_qrt dog/b.jpg")
    data = read_folder(tmp_path, "zzz cat")
    assert {p.caption for p in data.photos} == {"a photo of ohwx man", "a photo of qrt dog"}
    assert "'zzz cat' is not used" in data.problems[0].message


def test_nothing_to_train_on_is_an_error_that_describes_a_photo_folder(tmp_path: Path) -> None:
    with pytest.raises(MaquetteError, match=r"No readable photo in .* A photo folder holds .*IMG_1\.jpg"):
        read_folder(tmp_path, "x y")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(MaquetteError, match=r"a\.png is empty"):
        read_folder(tmp_path, "x y")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "It is empty."),
        (["40_ohwx man/"], "Its folder '40_ohwx man' is empty."),
        (["a.txt", "b.txt"], "It holds 2 .txt. Texts such as a.txt are captions: the photos of the same names"),
        (["deep/set.toml", "a.txt"], "If set.toml is a data set file, name it instead of the folder."),
        (["all.zip"], "It holds 1 .zip. If the photos are in all.zip, unpack it."),
        (["clip.MP4"], "clip.MP4 is a video"),
        (["sd15.safetensors"], "looks like a model: that is for --base"),
        (["meta.json"], "If meta.json lists the photos, they must lie where it says."),
    ],
)
def test_a_folder_without_photos_is_described(names: list[str], says: str, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_text("{}")
    with pytest.raises(MaquetteError) as error:
        read_folder(tmp_path, "x y")
    assert says in str(error.value) and "A photo folder holds 5 to 50 photos" in str(error.value)


def test_a_misnamed_kohya_folder_is_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    for folder in ("40 ohwx man", "12-qrt dog", "2024_holiday", "beach"):
        photo(f"set/{folder}/a.jpg")
    data = read_folder(tmp_path / "set", "x y")
    assert [problem.message for problem in data.problems] == [
        "The folder '12-qrt dog' is read without repeats and subject; if they are meant, rename it to '12_qrt dog'.",
        "The folder '40 ohwx man' is read without repeats and subject; if they are meant, rename it to '40_ohwx man'.",
    ]
    assert {p.repeats for p in data.photos} == {1} and len(data.photos) == 4


def test_wrong_paths_get_a_remedy(photo: Callable[..., Path], tmp_path: Path) -> None:
    path = photo("photos/a.jpg")
    with pytest.raises(MaquetteError, match=r"There is no folder .*fotos\. Did you mean .*photos\?"):
        read_folder(tmp_path / "fotos")
    with pytest.raises(MaquetteError, match="is a file; name the folder"):
        read_folder(path)
    (tmp_path / "photos.zip").write_bytes(b"PK")
    with pytest.raises(MaquetteError, match="is an archive; unpack it"):
        read_folder(tmp_path / "photos.zip")
    with pytest.raises(MaquetteError, match="No readable regularization picture"):
        (tmp_path / "reg").mkdir()
        read_folder(tmp_path / "photos", "ohwx man", reg=tmp_path / "reg")


def test_training_is_refused_with_unreadable_captions(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    require_trainable(read_folder(tmp_path, "zkw robot"))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    photo("b.jpg")
    with pytest.raises(MaquetteError, match=r"The caption a\.txt is not UTF-8"):
        require_trainable(read_folder(tmp_path, "zkw robot"))


def test_empty_caption_file_falls_back_and_says_so(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg", " \n")
    read = read_folder(tmp_path, "zkw robot").photos[0]
    assert (read.caption, read.caption_source) == ("a photo of zkw robot", "subject")
    assert read.notes == ("its caption file a.txt is empty",)


def test_order_and_content_do_not_depend_on_the_file_system(photo: Callable[..., Path], tmp_path: Path) -> None:
    for name in ["c.jpg", "a.jpg", "B.jpg", "d/a.jpg"]:
        photo(name)
    names = [p.name for p in read_folder(tmp_path, "x y").photos]
    assert names == ["B.jpg", "a.jpg", "c.jpg", "d/a.jpg"]
