"""What is read from disk: ordinary files, within a budget; and text that cannot steer a terminal."""

from __future__ import annotations

import json
import os
import re
import socket
from pathlib import Path

import pytest

from maquette import limits
from maquette.errors import MaquetteError
from maquette.files import at_home, is_regular, open_regular, read_bytes, read_text
from maquette.parsing import parse_json, read_json
from maquette.shown import visible, visible_json


def test_special_files_are_refused_by_kind_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.path.relpath(tmp_path / "socket"))
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    kinds = {"pipe.png": "a named pipe", "link.png": "a named pipe", "socket": "a socket", ".": "a folder"}
    for name, kind in kinds.items():
        assert not is_regular(tmp_path / name)
        with pytest.raises(MaquetteError, match=f"^it is {kind}.*, not an ordinary file; it was not read"):
            open_regular(tmp_path / name, "it")
    with pytest.raises(MaquetteError, match="/dev/zero is a device, not an ordinary file"):
        read_bytes("/dev/zero", 10, "caption")


def test_links_to_files_are_read_and_what_is_missing_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert is_regular(tmp_path / "link") and read_bytes(tmp_path / "link", 5, "caption") == b"12345"
    with pytest.raises(MaquetteError, match=r"nowhere cannot be read: No such file or directory\."):
        read_bytes(tmp_path / "nowhere", 5, "caption")
    with pytest.raises(MaquetteError, match="cannot be read: embedded null"):
        open_regular("a\0b")


def test_a_file_larger_than_its_budget_is_refused_by_its_size_alone(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(20_000_000_000)  # holes: no room on the disk
    with pytest.raises(MaquetteError, match=r"huge is larger than any caption \(100 kB at most\); it was not read"):
        read_bytes(tmp_path / "huge", 100_000, "caption")


def test_text_is_utf8_with_or_without_mark(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfgr\xc3\xbcn")
    assert read_text(tmp_path / "a", 100, "caption") == "grün"
    (tmp_path / "b").write_bytes(b"gr\xfcn")
    with pytest.raises(MaquetteError, match=r"b is not UTF-8 text \(byte 3\)"):
        read_text(tmp_path / "b", 100, "caption")


def test_json_is_read_as_it_is(tmp_path: Path) -> None:
    text = '{"a": [1, -2.5, "\\ud83d\\ude00", null, true], "seed": 340282366920938463463374607431768211455}'
    (tmp_path / "a.json").write_text(text)
    value = read_json(tmp_path / "a.json", 1000, "caption")
    assert value == {"a": [1, -2.5, "\U0001f600", None, True], "seed": (1 << 128) - 1}
    assert parse_json("7", "x") == 7 and parse_json('"text"', "x") == "text"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[" * 101 + "]" * 101, "is nested too deep"),
        ('{"a":' * 101 + "1" + "}" * 101, "is nested too deep"),
        ("[" * 100_000, "is nested too deep"),
        ("9" * 5000, "a number of 5000 digits"),
        ("-1e999", "the number -1e999 is too large"),
        ("[NaN]", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ('"\\ud800"', "holds half of a surrogate pair"),
        ("{", "is not valid JSON"),
        ("", "is not valid JSON"),
    ],
)
def test_json_that_would_trip_its_reader_is_refused(text: str, fault: str) -> None:
    with pytest.raises(MaquetteError, match=f"^x.json.*{re.escape(fault)}"):
        parse_json(text, "x.json")


def test_json_of_the_deepest_allowed_nesting_is_read() -> None:
    assert parse_json("[" * limits.JSON_DEPTH + "]" * limits.JSON_DEPTH, "x")


def test_control_characters_are_shown_as_what_they_are() -> None:
    assert visible("a\x1b[2J\x07b") == r"a\x1b[2J\x07b"
    assert visible("\x9b31m \x7f") == r"\x9b31m \x7f"
    assert visible("photo\u202egnp.exe") == r"photo\u202egnp.exe"
    assert visible("\ud800 \udcff") == r"\ud800 \udcff"
    assert visible("one\ntwo\tthree\r") == r"one\ntwo\tthree\r"
    assert visible("one\n\ttwo\r", lines=True) == "one\n\ttwo\\r"
    assert visible("Größe 猫 \U0001f600 ©") == "Größe 猫 \U0001f600 ©"


def test_json_says_the_same_without_control_characters() -> None:
    value = {"a\x9b": "\x1b \x7f \u202e \u2028 \ud800 é\n"}
    text = visible_json(json.dumps(value, indent=2, ensure_ascii=False))
    assert json.loads(text) == value and "é" in text and visible(text, lines=True) == text


def test_no_character_that_commands_a_terminal_is_left() -> None:
    import unicodedata

    every = "".join(map(chr, range(0x110000)))
    left = {character for character in visible(every) if unicodedata.category(character) in ("Cc", "Cs")}
    assert left == set()
    assert not any(
        unicodedata.bidirectional(c) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
        for c in visible(every)
    )


def test_a_home_that_nobody_has_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert at_home("~/photos") == tmp_path / "photos" and at_home("a/~") == Path("a/~")
    assert at_home("~no-such-user/photos") == Path("~no-such-user/photos")
