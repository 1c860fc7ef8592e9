"""Several processes that share a benchmark's runs: nobody's twice, everybody's own folder, and an end in time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from PIL import Image

from benchmarks import defaults, questions
from benchmarks.choice import extra, together

PROGRAM = """
import pathlib, sys, time
pathlib.Path(sys.argv[1], str(time.time_ns())).write_text(sys.argv[2])
time.sleep(float(sys.argv[2]))
sys.exit(sys.argv[3] == "fail")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a_program_of_the_test.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "said").mkdir()
    return tmp_path / "said"


@pytest.mark.parametrize(("end", "failed"), [("well", 0), ("fail", 3)])
def test_as_many_processes_run_as_are_asked_for_and_those_that_fail_are_counted(
    program: Path, end: str, failed: int
) -> None:
    assert together.start([str(program), "0", end], 3, module="a_program_of_the_test") == failed
    assert [file.read_text() for file in program.iterdir()] == ["0"] * 3


def test_what_works_on_after_the_time_is_stopped(program: Path) -> None:
    began = time.time()
    together.start([str(program), "600", "well"], 2, began + 1, "a_program_of_the_test")
    assert time.time() - began < 300


def test_who_comes_second_waits(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        with together.in_turn(tmp_path / "of" / "it.lock"):
            order.append("second")

    thread = Thread(target=second)
    with together.in_turn(tmp_path / "of" / "it.lock"):
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_sprites_stand_side_by_side_below_one_of_their_photos(tmp_path: Path) -> None:
    for name, colour, height in (("comet", "red", 100), ("sponge", "blue", 150)):
        (tmp_path / name / "bases").mkdir(parents=True)
        (tmp_path / name / "photos").mkdir()
        Image.new("RGB", (300, height), colour).save(tmp_path / name / "bases/pictures.png")
        Image.new("RGB", (64, 64), colour).save(tmp_path / name / "photos/00.png")
    questions.side_by_side([tmp_path / "comet", tmp_path / "sponge"], "bases", tmp_path / "bases-sprites.png")
    with Image.open(tmp_path / "bases-sprites.png") as sheet:
        assert sheet.size == (600, 290)
        seen = [sheet.getpixel(place) for place in ((164, 70), (10, 145), (464, 70), (310, 145), (10, 245), (10, 5))]
    red, blue, white = (255, 0, 0), (0, 0, 255), (255, 255, 255)
    assert seen == [red, red, blue, blue, white, white]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The small sweep of two subjects without training; (name, folder) of what was begun."""
    begun: list[tuple[str, str]] = []

    def one(of: extra.Extra, jury: Any, folder: Path) -> dict[str, Any]:
        begun.append((of.name, str(folder)))
        return {"name": of.name}

    monkeypatch.setattr(extra, "PEOPLE", range(2))
    monkeypatch.setattr(extra, "HELD_OUT", (1,))
    monkeypatch.setattr(extra, "one", one)
    monkeypatch.setattr(extra, "Jury", lambda *_: None)
    return begun


def sweep(work: Path, until: float = 1e12) -> None:
    extra.sweep(work, [None, None], None, None, until)  # type: ignore[list-item, arg-type]


def test_a_sweep_leaves_alone_what_is_there_and_what_another_process_is_at(
    tmp_path: Path, trained: list[tuple[str, str]]
) -> None:
    every = [one.name for one in extra.extras()]
    there, held, *rest = every
    (tmp_path / f"{there}.json").write_text("{}")
    with together.claimed(tmp_path / "locks" / f"{held}.lock"):
        sweep(tmp_path)
    assert [name for name, _ in trained] == rest
    assert len({folder for _, folder in trained}) == len(rest)  # side by side
    sweep(tmp_path)
    assert [name for name, _ in trained] == [*rest, held]
    assert all(json.loads((tmp_path / f"{name}.json").read_text()) == {"name": name} for name in [*rest, held])
    assert not list(tmp_path.glob("*.part"))


def test_nothing_is_begun_after_the_time(tmp_path: Path, trained: list[tuple[str, str]]) -> None:
    sweep(tmp_path, until=time.time() - 1)
    assert not trained


def test_a_time_of_today_may_have_seconds() -> None:
    assert defaults.moment("10:20:30") - defaults.moment("10:20") == 30
    assert time.strftime("%Y-%m-%d %H:%M", time.localtime(defaults.moment("10:20"))) == time.strftime("%Y-%m-%d 10:20")
