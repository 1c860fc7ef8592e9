"""maquette check, caption and regularize on the command line: output, JSON, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maquette.cli.main import main


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    code = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_check_names_the_bad_files_and_succeeds(fault_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "check", str(fault_folder), "--subject", "zkw robot", "--repeats", "4")
    assert code == 0
    for name in [
        "truncated.jpg is damaged",
        "empty.png is empty",
        "notes.jpg is not a picture",
        "moving.gif is an anim",
    ]:
        assert f"left out: {name}" in out
    assert "5 photos x repeats = 20 samples per epoch" in out and "turned upright" in " ".join(out.split())
    assert "becomes part of 'zkw robot'" in out


def test_check_json_is_all_that_is_on_stdout(fault_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "check", str(fault_folder), "--subject", "zkw robot", "--json")
    record = json.loads(out)
    assert code == 0 and record["images"] == 5 and record["ready"] is True
    assert "reading photos" in err


def test_check_fails_with_a_sentence_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, "check", str(tmp_path))
    assert (code, out) == (1, "")
    assert (
        err.startswith(f"error: No readable photo in {tmp_path}. It is empty. A photo folder holds")
        and "Traceback" not in err
    )
    code, _, err = command(capsys, "check", str(tmp_path / "none"))
    assert code == 1 and "There is no folder" in err
    assert command(capsys, "check")[0] == 2


def test_check_exits_1_when_training_must_not_start(fault_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (fault_folder / "good.txt").write_text("a robot")
    code, out, _ = command(capsys, "check", str(fault_folder), "--subject", "zkw robot")
    assert code == 1 and "No caption file contains 'zkw'" in out


def test_check_page(fault_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    code, _, told = command(capsys, "check", str(fault_folder), "--subject", "zkw robot", "--html", str(page))
    assert code == 0 and f"page written: {page}" in told
    assert page.read_text(encoding="utf-8").count("<img ") == 5


def test_caption_writes_what_is_missing(fault_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = command(capsys, "caption", str(fault_folder), "--subject", "zkw robot", "--add", "studio")
    assert code == 0 and "5 captions written, 0 kept as they were." in out
    assert (fault_folder / "turned.txt").read_text() == "a photo of zkw robot, studio\n"
    code, out, _ = command(capsys, "caption", str(fault_folder), "--remove", "studio", "--dry-run", "--json")
    assert code == 0 and json.loads(out)["written"] == 5
    assert (fault_folder / "turned.txt").read_text() == "a photo of zkw robot, studio\n"
    code, _, err = command(capsys, "caption", str(fault_folder), "--captioner", "blip", "--overwrite")
    assert code == 1 and "blip has no weights" in err


def test_regularize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--prompt", "a photo of a cat", "--steps", "1", "--width", "32", "--height", "32"]
    code, out, _ = command(capsys, "regularize", str(tmp_path / "reg"), "--count", "2", "--json", *options)
    assert code == 0 and json.loads(out)["made"] == 2
    assert (tmp_path / "reg" / "class-00001.txt").read_text() == "a photo of a cat\n"
    code, _, err = command(capsys, "regularize", str(tmp_path / "reg"))
    assert code == 1 and "give count, or the photos" in err
