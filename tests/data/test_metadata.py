"""Captions for a folder in one file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from maquette.data.layouts import read_folder
from maquette.errors import MaquetteError

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def folder(quadrants: MakeImage, tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for name in ["a.jpg", "b.png", "sub/c.png"]:
        quadrants().save(tmp_path / name)
    return tmp_path


def captions(path: Path, subject: str | None = None) -> dict[str, tuple[str, str]]:
    return {p.name: (p.caption, p.caption_source) for p in read_folder(path, subject).photos}


def test_kohya_json_by_stem_name_and_path(folder: Path) -> None:
    entries = {
        "a": {"caption": "zkw robot", "tags": "red, round", "image_size": [64, 64]},
        str(folder / "b.png"): {"tags": "blue, square"},
        "sub\\c": {"caption": " a  robot "},
    }
    (folder / "meta_cap.json").write_text(json.dumps(entries))
    assert captions(folder) == {
        "a.jpg": ("zkw robot, red, round", "meta_cap.json"),
        "b.png": ("blue, square", "meta_cap.json"),
        "sub/c.png": ("a robot", "meta_cap.json"),
    }
    assert captions(folder / "meta_cap.json") == captions(folder)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.json"])
def test_rows(folder: Path, name: str) -> None:
    rows: list[dict[str, Any]] = [
        {"file_name": "a.jpg", "text": "zkw, red"},
        {"file_name": "./sub/c.png", "text": "zkw"},
    ]
    if name.endswith("csv"):
        text = 'file_name,text\na.jpg,"zkw, red"\n./sub/c.png,zkw\n'
    else:
        text = "\n".join(map(json.dumps, rows)) if name.endswith("jsonl") else json.dumps(rows)
    (folder / name).write_text("\ufeff" + text, encoding="utf-8")
    (folder / "a.txt").write_text("from the text file")
    assert captions(folder, "zkw robot") == {
        "a.jpg": ("from the text file", "a.txt"),
        "b.png": ("a photo of zkw robot", "subject"),
        "sub/c.png": ("zkw", name),
    }


def test_captions_of_several_lines_and_accents_of_both_spellings(folder: Path) -> None:
    (folder / "a.jpg").rename(folder / "cafe\u0301.jpg")  # as macOS writes it
    (folder / "metadata.csv").write_text(
        'file_name,text\r\ncaf\xe9.jpg,"zkw,\r\nred"\r\nb.png,one\u2028two\r\n', "utf-8"
    )
    found = {text for text, source in captions(folder, "zkw robot").values() if source == "metadata.csv"}
    assert found == {"zkw, red", "one two"}
    (folder / "metadata.csv").unlink()
    line = json.dumps({"file_name": "b.png", "text": "one\u2028two"}, ensure_ascii=False)
    (folder / "metadata.jsonl").write_text(line + "\r\n", "utf-8")
    assert captions(folder, "zkw robot")["b.png"] == ("one two", "metadata.jsonl")


def test_entries_without_a_photo_are_named(folder: Path) -> None:
    (folder / "metadata.json").write_text(json.dumps({key: {"caption": "x"} for key in ["a", "z1", "z2"]}))
    problems = read_folder(folder, "zkw robot").problems
    assert [p.message for p in problems] == ["metadata.json has 2 entries without a photo: z1, z2."]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("metadata.json", "{", r"metadata\.json is not valid JSON"),
        ("metadata.json", "3", r"metadata\.json is not metadata of pictures"),
        ("metadata.json", '{"a": {"caption": "x"}, "b": 3}', r"metadata\.json is not metadata of pictures"),
        (
            "metadata.csv",
            "file_name,text\na.jpg," + "x" * 140_000,
            r"metadata\.csv is not a valid CSV file: field larger",
        ),
        ("metadata.jsonl", '{"file_name": "a.jpg"}\n{', r"metadata\.jsonl, line 2, is not valid JSON"),
        (
            "metadata.csv",
            "photo,text\na.jpg,x\n",
            r"metadata\.csv: entry 1 names no picture; expected one of file_name",
        ),
    ],
)
def test_faults(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(MaquetteError, match=message):
        read_folder(folder)


def test_the_metadata_of_an_album_is_something_else(folder: Path) -> None:
    (folder / "metadata.json").write_text('{"title": "Summer", "description": "", "access": "protected"}')
    assert captions(folder, "zkw robot")["a.jpg"] == ("a photo of zkw robot", "subject")


def test_two_metadata_files_are_refused_in_a_folder_but_each_can_be_named(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,x\n")
    (folder / "meta_lat.json").write_text(json.dumps({"a": {"caption": "y"}}))
    with pytest.raises(MaquetteError, match=r"several metadata files \(meta_lat\.json, metadata\.csv\)"):
        read_folder(folder)
    assert captions(folder / "metadata.csv", "s t")["a.jpg"] == ("x", "metadata.csv")


def test_a_named_file_leaves_the_regularization_images_beside_it_their_role(folder: Path) -> None:
    (folder / "sub").rename(folder / "reg")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "zkw robot"}\n')
    for named in (folder, folder / "metadata.jsonl"):
        roles = {photo.name: photo.role for photo in read_folder(named, "zkw robot").photos}
        assert roles == {"a.jpg": "instance", "b.png": "instance", "c.png": "class"}


@pytest.mark.parametrize("name", ["10_zkw robot", "sub"])
def test_a_file_that_lies_where_none_is_read_is_named(folder: Path, name: str) -> None:
    """Its captions were lost in silence: Kohya's folders have text files, and a sub-folder is part of its parent."""
    (folder / "sub").rename(folder / name)
    (folder / name / "metadata.jsonl").write_text('{"file_name": "c.png", "text": "zkw robot, red"}\n')
    (folder / name / "metadata.json").write_text('{"title": "an album"}')
    messages = [problem.message for problem in read_folder(folder, "zkw robot").problems]
    says = f"{name}/metadata.jsonl is not read, nor the captions in it: name it instead of the folder to learn them."
    assert [message for message in messages if "metadata" in message] == [says]
    leaf = read_folder(folder / name, "zkw robot")
    assert bool(leaf.problems) is (name != "sub")
    assert captions(folder / name / "metadata.jsonl", "zkw robot") == {"c.png": ("zkw robot, red", "metadata.jsonl")}


def test_a_file_beside_kohyas_folders_is_named(folder: Path) -> None:
    (folder / "sub").rename(folder / "10_zkw robot")
    (folder / "meta_cap.json").write_text('{"c": {"caption": "zkw robot, red"}}')
    found = [problem.photo for problem in read_folder(folder).problems if problem.kind == "caption"]
    assert found == ["meta_cap.json"]


@pytest.mark.parametrize(
    ("wildcards", "said"),
    [(False, "1 captions of several lines (the first m.json) are read to the end of their first line"), (True, "")],
)
def test_lines_of_an_entry_are_read_as_sd_scripts_reads_them(folder: Path, wildcards: bool, said: str) -> None:
    entries = {"a": {"caption": "zkw  robot\r\n\n on red", "tags": "x,\ny"}, "b": {"caption": "zkw", "tags": "x"}}
    (folder / "m.json").write_text(json.dumps(entries))
    (folder / "set.toml").write_text(
        f"[general]\nenable_wildcard = {str(wildcards).lower()}\n[[datasets]]\n[[datasets.subsets]]\n"
        f"image_dir = {str(folder)!r}\nmetadata_file = 'm.json'\n"
    )
    data = read_folder(folder / "set.toml")
    each = "zkw robot, x, y\non red, x, y"
    assert {p.name: p.caption for p in data.photos} == {"a.jpg": each if wildcards else "zkw robot", "b.png": "zkw, x"}
    told = [p.message for p in data.problems if p.kind == "lines"]
    assert len(told) == bool(said) and all(message.startswith(said) for message in told)
    assert read_folder(folder / "m.json").photos[0].caption == "zkw robot on red, x, y"
