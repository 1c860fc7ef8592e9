"""Plain folders and Kohya's: what is used, with which caption and repeats, and that nothing is lost in silence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.data.caption_options import CaptionOptions
from maquette.data.dataset import manifest
from maquette.data.doctor import require_trainable
from maquette.data.layouts import read_folder
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


@pytest.mark.parametrize("folder", ["2024_holiday", "2024_06 trip", "100_CANON", "101_PANA"])
def test_numbers_of_years_and_cameras_are_no_repeats(photo: Callable[..., Path], tmp_path: Path, folder: str) -> None:
    photo(f"{folder}/a.jpg")
    data = read_folder(tmp_path, "ohwx man")
    assert (data.layout, [(p.caption, p.repeats) for p in data.photos]) == ("plain", [("a photo of ohwx man", 1)])
    assert data.problems == []
    (problem,) = read_folder(tmp_path).problems
    assert problem.message == (
        f"The folder '{folder}' is read without repeats and subject, for its number looks like a year's or a camera's; "
        "if they are meant, name the subject too (--subject)."
    )
    words = folder.split("_")[1]
    assert [p.repeats for p in read_folder(tmp_path, words).photos] == [int(folder.split("_")[0])]


def test_folders_that_a_person_numbered_keep_the_named_subject(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("11_november/a.jpg")
    photo("12_december/b.jpg")
    data = read_folder(tmp_path, "zkw robot")
    assert [(p.caption, p.repeats) for p in data.photos] == [("a photo of zkw robot", 1)] * 2
    (problem,) = data.problems
    assert problem.message == (
        "For the subject 'zkw robot' the folders '11_november', '12_december' are ordinary ones, without repeats: "
        "their names say something else. If Kohya's repeats are meant, call it '40_zkw robot' or leave out --subject."
    )


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("10_ohwx_man", (10, "ohwx_man")),
        ("1000_big thing", (1000, "big thing")),
        ("03_three", (3, "three")),
        ("5_", (5, "")),
        ("40_a_b_c", (40, "a_b_c")),
        ("x_y", None),
    ],
)
def test_repeats_and_subject_of_a_name_are_those_of_sd_scripts(
    photo: Callable[..., Path], tmp_path: Path, folder: str, expected: tuple[int, str] | None
) -> None:
    photo(f"set/{folder}/a.jpg", "some caption")
    (read,) = read_folder(tmp_path / "set").photos
    assert (read.repeats, read.subject) == (expected or (1, ""))
    (read,) = read_folder(tmp_path / "set" / folder).photos
    assert (read.repeats, read.subject) == (expected or (1, ""))


@pytest.mark.parametrize("name", [" 40_ohwx man", "+40_ohwx man", "040_ohwx  man ", "40 _ohwx man", "40_ ohwx\tman"])
def test_numbers_are_what_sd_scripts_reads_as_one(name: str, photo: Callable[..., Path], tmp_path: Path) -> None:
    photo(f"{name}/a.jpg")
    photo("3_ohwx man/b.jpg")
    data = read_folder(tmp_path)
    assert {(p.path.name, p.repeats, p.subject) for p in data.photos} == {
        ("a.jpg", 40, "ohwx man"),
        ("b.jpg", 3, "ohwx man"),
    }
    assert data.problems == []


def test_less_than_one_repeat_leaves_a_folder_out_by_name(photo: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("img/3_ohwx man/a.jpg", "img/-5_ohwx man/b.jpg", "img/0_cat/c.jpg", "reg/0_man/d.jpg"):
        photo(name)
    with pytest.raises(MaquetteError, match=r"No readable regularization image .*'0_man' asks for 0 repeats"):
        read_folder(tmp_path)
    photo("reg/1_man/e.jpg")
    data = read_folder(tmp_path)
    assert [(p.path.name, p.repeats, p.role) for p in data.photos] == [("a.jpg", 3, "instance"), ("e.jpg", 1, "class")]
    assert {p.message for p in data.left_out} == {
        f"The folder '{name}' asks for {count} repeats and is left out."
        for name, count in (("-5_ohwx man", -5), ("0_cat", 0), ("0_man", 0))
    }


def test_a_number_alone_lacks_the_subject(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("40/a.jpg")
    [problem] = read_folder(tmp_path, "zkw robot").problems
    assert problem.message.startswith("The folder '40' is read without repeats; if they are meant")
    assert "'40_zkw robot'" in problem.message
    photo("3_zkw robot/b.jpg")
    [problem] = read_folder(tmp_path).left_out
    assert problem.message == "The folder '40' is left out: its name lacks the subject; rename it to '40_ohwx man'."


def test_a_folder_of_the_subject_keeps_its_repeats(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("set/40_ohwx man/a.jpg")
    for folder in ("set", "set/40_ohwx man"):
        data = read_folder(tmp_path / folder, "ohwx man")
        assert [(p.caption, p.repeats) for p in data.photos] == [("a photo of ohwx man", 40)] and not data.problems


def test_subject_of_one_of_several_kohya_folders(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("40_ohwx man/a.jpg")
    photo("10_qrt dog/b.jpg")
    data = read_folder(tmp_path, "ohwx man")
    assert [(p.caption, p.repeats) for p in data.photos] == [("a photo of qrt dog", 10), ("a photo of ohwx man", 40)]
    assert data.problems[0].message == (
        "The subject 'ohwx man' is not that of all photos: the folders '10_qrt dog' name their own."
    )


def test_kohya_folders_are_not_searched_below(photo: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.png", "sub/deep/c.png", "masks/a.png"):
        photo(f"set/40_ohwx man/{name}")
    for folder in ("set", "set/40_ohwx man"):
        data = read_folder(tmp_path / folder)
        assert [p.path.name for p in data.photos] == ["a.png"] and data.photos[0].mask is not None
        assert [(p.message, p.left_out) for p in data.problems] == [
            (
                "2 photos in '40_ohwx man/sub' left out: Kohya's folders and data set files are not searched below, "
                "there as here; move them up.",
                True,
            )
        ]


def test_a_reg_folder_beside_photos_is_never_trained_as_the_subject(photo: Callable[..., Path], tmp_path: Path) -> None:
    for start, layout in (("plain/a.jpg", "plain"), ("kohya/40_ohwx man/a.jpg", "kohya")):
        photo(start)
        root = tmp_path / start.split("/")[0]
        photo(f"{root.name}/reg/r.jpg")
        data = read_folder(root, "ohwx man")
        assert (data.layout, [(p.path.name, p.role) for p in data.photos]) == (
            layout,
            [("a.jpg", "instance"), ("r.jpg", "class")],
        )
        assert not data.problems
        named = read_folder(root, "ohwx man", reg=root / "reg")
        assert [p.role for p in named.photos] == ["instance", "class"]


def test_what_systems_leave_behind_is_no_photo(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    for name in ("@eaDir/a.jpg", "@eaDir/a.jpg@SynoEAStream.jpg", ".thumbnails/a.jpg", "__MACOSX/a.jpg", "._a.jpg"):
        photo(name)
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    photo("#recycle/a.jpg")
    data = read_folder(tmp_path, "zkw robot")
    assert [p.name for p in data.photos] == ["a.jpg"] and data.problems == []


def test_endless_repeats_are_refused(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("999999999_ohwx man/a.jpg")
    with pytest.raises(MaquetteError, match="999999999 samples per epoch, more than anyone trains"):
        read_folder(tmp_path)
    photo("plain/a.jpg")
    with pytest.raises(MaquetteError, match="give fewer, and more epochs"):
        read_folder(tmp_path / "plain", "x y", repeats=10**9)


def test_photos_that_share_a_caption_or_mask_are_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "b.png", "sub/b.png"):
        photo(name)
    (tmp_path / "a.txt").write_text("zkw robot on the beach")
    (tmp_path / "masks").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (80, 60), 255).save(tmp_path / "masks" / name)
    data = read_folder(tmp_path, "zkw robot")
    assert [(p.kind, p.photo, p.message) for p in data.problems] == [
        (
            "shared",
            "a.png",
            "a.jpg and a.png share the caption a.txt; name the captions after the whole file names (a.jpg.txt), or "
            "rename one of the photos.",
        ),
        (
            "shared",
            "a.png",
            "a.jpg and a.png share the mask a.png; name the masks after the whole file names (a.jpg.png), or rename "
            "one of the photos.",
        ),
        (
            "shared",
            "sub/b.png",
            "b.png and sub/b.png share the mask b.png; name the masks after the whole file names (b.png.png), or "
            "rename one of the photos.",
        ),
    ]
    (tmp_path / "a.txt").rename(tmp_path / "a.jpg.txt")  # the remedy
    (tmp_path / "a.png.txt").write_text("zkw robot in the sea")
    (tmp_path / "masks" / "a.png").rename(tmp_path / "masks" / "a.jpg.png")
    (tmp_path / "masks" / "sub").mkdir()
    (tmp_path / "masks" / "b.png").rename(tmp_path / "masks" / "sub" / "b.png")
    data = read_folder(tmp_path, "zkw robot")
    assert data.problems == []
    assert [(p.name, p.caption_source, p.mask and p.mask.name) for p in data.photos] == [  # type: ignore[union-attr]
        ("a.jpg", "a.jpg.txt", "a.jpg.png"),
        ("a.png", "a.png.txt", None),
        ("b.png", "subject", None),
        ("sub/b.png", "subject", "b.png"),
    ]


def test_pictures_under_names_of_no_photos_are_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    content = photo("a.jpg").read_bytes()
    for name in ("IMG_2", "b.jpg_large", "a.jpg_original"):  # the last is exiftool's copy of a photo that is read
        (tmp_path / name).write_bytes(content)
    (tmp_path / "notes.md").write_text("BM of mine")
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(9))
    data = read_folder(tmp_path, "zkw robot")
    assert [p.name for p in data.photos] == ["a.jpg"]
    assert [p.message for p in data.problems] == [
        "2 pictures (the first IMG_2) are not read: names of photos end in .jpg, .png and so on; rename them."
    ]


def test_photos_that_share_a_metadata_entry_are_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    photo("a.png")
    (tmp_path / "meta_cap.json").write_text('{"a": {"caption": "zkw robot"}}')
    (problem,) = read_folder(tmp_path, "zkw robot").problems
    assert problem.message == (
        "a.jpg, a.png share the entry 'a' of meta_cap.json; write file names with their extensions."
    )


def test_metadata_of_other_paths_is_refused(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    (tmp_path / "meta_cap.json").write_text('{"/home/x/a.png": {"caption": "zkw robot"}}')
    data = read_folder(tmp_path, "zkw robot")
    with pytest.raises(MaquetteError) as error:
        require_trainable(data, "zkw robot")
    assert str(error.value) == (
        "meta_cap.json has 1 entry and none is of a photo here (/home/x/a.png): correct its paths, or take the file "
        "out of the folder."
    )
    photo("a.jpg", "zkw robot, hat")  # who has captions needs no metadata
    require_trainable(read_folder(tmp_path, "zkw robot"), "zkw robot")


def test_captions_of_several_lines_and_other_files_are_named(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg", "zkw robot\n\nwith a hat")
    photo("b.jpg", "zkw robot")
    (tmp_path / "b.caption").write_text("hidden")
    (tmp_path / "a.tags").write_text("zkw, robot")
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "a.npz").write_bytes(b"PK")
    data = read_folder(tmp_path, "zkw robot")
    assert [p.caption for p in data.photos] == ["zkw robot with a hat", "zkw robot"]
    assert [p.message for p in data.problems] == [
        "1 caption (b.caption) is not read: a photo's .txt file comes first.",
        "1 .tags text (a.tags) is not read: captions are .txt and .caption files here; rename them.",
        "1 captions of several lines (the first a.txt) are read as one caption; with caption_wildcards "
        "(enable_wildcard) each line is a caption of its own.",
    ]
    data = read_folder(tmp_path, "zkw robot", options=CaptionOptions(wildcards=True))
    assert data.photos[0].caption == "zkw robot\nwith a hat" and len(data.problems) == 2


def test_bad_captions_alone_do_not_make_photos_unreadable(photo: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        photo(f"{name}.jpg")
        (tmp_path / f"{name}.txt").write_bytes(b"w" * 200_000)
    with pytest.raises(MaquetteError) as error:
        read_folder(tmp_path, "zkw robot")
    assert str(error.value) == (
        f"No photo in {tmp_path} can be used. "
        "The caption a.txt is larger than any caption (100 kB at most); it was not read. "
        "The caption b.txt is larger than any caption (100 kB at most); it was not read."
    )


def test_captions_in_old_encodings_are_read_and_said(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    (tmp_path / "a.txt").write_bytes("zkw robot in a café".encode("cp1252"))
    data = read_folder(tmp_path, "zkw robot")
    assert [p.caption for p in data.photos] == ["zkw robot in a café"]
    assert [p.message for p in data.problems] == [
        "The caption a.txt is not UTF-8 and was read as Windows-1252: 'zkw robot in a café'; save it as UTF-8 if that "
        "is wrong."
    ]


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
    with pytest.raises(MaquetteError, match="No readable regularization image"):
        (tmp_path / "reg").mkdir()
        read_folder(tmp_path / "photos", "ohwx man", reg=tmp_path / "reg")


def test_training_is_refused_with_unreadable_captions(photo: Callable[..., Path], tmp_path: Path) -> None:
    photo("a.jpg")
    require_trainable(read_folder(tmp_path, "zkw robot"), "zkw robot")
    (tmp_path / "a.txt").write_bytes(b"caf\x81")
    photo("b.jpg")
    with pytest.raises(MaquetteError, match=r"The caption a\.txt is not UTF-8"):
        require_trainable(read_folder(tmp_path, "zkw robot"), "zkw robot")


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


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
def test_names_that_are_no_utf8_are_left_out_and_said(photo: Callable[..., Path], tmp_path: Path) -> None:
    """An archive of an old system leaves them; a run could not list them, and ended after the work of an hour."""
    photo("folder/a.png")
    for name in (b"caf\xe9.png", b"caf\xe8.gif"):
        (tmp_path / "folder" / os.fsdecode(name)).write_bytes((tmp_path / "folder/a.png").read_bytes())
    found = read_folder(tmp_path / "folder", "zkw robot")
    assert [p.name for p in found.photos] == ["a.png"]
    left = {problem.photo: problem.message for problem in found.left_out}
    assert left.keys() == {"caf\\udce9.png", "caf\\udce8.gif"}
    assert left["caf\\udce9.png"] == (
        "The name of caf\\udce9.png is no UTF-8, in which a run lists its photos: rename it."
    )
    json.dumps(manifest(found), ensure_ascii=False).encode()
