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
