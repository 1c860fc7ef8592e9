"""Captions from files and from the subject."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maquette.data.captions import (
    CaptionText,
    FolderNames,
    caption_for_class,
    caption_for_subject,
    caption_of_class,
    class_of,
    find_caption,
    read_caption,
)
from maquette.errors import MaquetteError


def test_subject_and_class_make_captions() -> None:
    assert caption_for_subject("zkw robot") == "a photo of zkw robot"
    assert caption_for_subject("  zkw   robot ") == "a photo of zkw robot"
    assert caption_for_subject("photo of ohwx man") == "photo of ohwx man"
    assert caption_for_subject("A painting of qrt") == "A painting of qrt"
    assert caption_for_subject("ohwx man", "{subject}, film grain") == "ohwx man, film grain"
    assert class_of("ohwx old man") == "old man" and class_of("robot") == "robot"
    assert caption_for_class("man") == "a photo of a man"
    assert caption_for_class("old robot") == "a photo of an old robot"
    assert caption_for_class("the moon") == "a photo of the moon"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_caption_files_in_the_encodings_of_editors(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a photo of zkw robot,\r\n in a café \n".encode(encoding))
    assert read_caption(path) == CaptionText(("a photo of zkw robot,", "in a café"))
    assert read_caption(path).joined == "a photo of zkw robot, in a café"


def test_unreadable_captions_are_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"in a caf\x81")
    with pytest.raises(MaquetteError, match=r"The caption a\.txt is not UTF-8 text \(byte 9\); save it again as UTF-8"):
        read_caption(path)
    path.write_bytes(b"\0\0\1\0")
    with pytest.raises(MaquetteError, match=r"a\.txt is not text"):
        read_caption(path)
    path.write_bytes(b"w" * 100_001)
    with pytest.raises(MaquetteError, match=r"The caption a\.txt is larger than any caption \(100 kB at most\)"):
        read_caption(path)


def test_captions_of_old_editors_are_read_as_windows_1252(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("in a café – “hat”".encode("cp1252"))
    assert read_caption(tmp_path / "a.txt") == CaptionText(("in a café – “hat”",), "Windows-1252")


@given(st.text())
def test_any_unicode_text_becomes_one_line_with_its_words(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    clean = text.replace("\0", "").encode("utf-8", "ignore").decode()
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(clean.encode("utf-8"))
    caption = read_caption(path).joined
    assert caption.split() == clean.removeprefix("\ufeff").split()
    assert len(caption.splitlines()) <= 1


def test_which_caption_file_belongs_to_a_photo() -> None:
    folder = Path("photos")

    def found(photo: str, *names: str) -> str | None:
        path = find_caption(folder / photo, FolderNames(folder, names))
        return path.name if path else None

    assert found("a.jpg", "a.txt", "a.caption") == "a.txt"
    assert found("a.jpg", "a.caption") == "a.caption"
    assert found("A.JPG", "a.TXT") == "a.TXT"
    assert found("a.jpg", "a.jpg.txt") == "a.jpg.txt"
    assert found("a.jpg", "a.txt", "a.jpg.txt") == "a.jpg.txt"  # the more exact name
    assert found("a.b.jpg", "a.txt", "a.b.txt") == "a.b.txt"
    assert found("a.jpg", "A.txt", "a.txt") == "a.txt"
    assert found("a.jpg", "b.txt") is None
    assert found("cafe\u0301.jpg", "caf\xe9.txt") == "caf\xe9.txt"  # an accent spelled by macOS and by others


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a photo of zkw robot on a red background", "a photo of a robot on a red background"),
        ("the ZKW robot, smiling", "a robot, smiling"),
        ("zkw robots in a row", None),
        ("a garden", None),
    ],
)
def test_the_class_takes_the_subjects_place(caption: str, expected: str | None) -> None:
    assert caption_of_class(caption, "zkw robot") == expected


def test_subjects_with_signs_are_no_patterns() -> None:
    assert caption_of_class("a photo of zkw \\1 (robot)", "zkw \\1 (robot)") == "a photo of a \\1 (robot)"
