"""The program for a graphics card: its parts run one by one, and what goes wrong in one is said and stops no other."""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

import pytest

from tools.gpu import __main__ as program
from tools.gpu.parts import PARTS, Part
from tools.gpu.rows import Rows

ROOT = Path(__file__).parents[2]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["tools.gpu", *arguments])
    with pytest.raises(SystemExit) as ended:
        program.main()
    return int(ended.value.code or 0)


def test_a_part_that_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--rehearse", "--only", "machine", "--out", str(tmp_path)) == 0
    assert "every part passed" in capfd.readouterr().out
    rows = json.loads((tmp_path / "machine.json").read_text())
    assert any(row.get("teraflops", 0) > 0 for row in rows)


def test_a_part_that_runs_too_long_is_ended(tmp_path: Path) -> None:
    options = argparse.Namespace(out=tmp_path, rehearse=True)
    assert program._run("machine", options, 0.05) == "ran past its 0 s"
    assert not (tmp_path / "machine.json").exists()


def test_what_does_not_fit_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--only", "machine", "--seconds", "5", "--out", str(tmp_path)) == 1
    assert "machine left out: no time" in capfd.readouterr().out


def test_an_unknown_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--only", "machin", "--out", str(tmp_path)) == 2
    assert "there is no part 'machin'; choose from machine, methods" in capfd.readouterr().err


def test_a_wrong_row_fails_its_part(tmp_path: Path) -> None:
    rows = Rows("trial", tmp_path)
    rows.add(True, value=1.0)
    rows.end()
    rows.add(False, value=2.0)
    with pytest.raises(SystemExit, match="1 of 2 rows are wrong"):
        rows.end()
    assert [row["right"] for row in json.loads((tmp_path / "trial.json").read_text())] == [True, False]


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_every_part_exists(part: Part) -> None:
    module = __import__(f"tools.gpu.{part.module}", fromlist=[part.function])
    assert callable(getattr(module, part.function))


def test_every_wheel_has_a_version() -> None:
    wanted = [line for line in (ROOT / "tools/gpu/wheels.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    known = {name.lower().replace("_", "-") for name in pinned}
    assert {name.lower().replace("_", "-") for name in wanted} <= known
