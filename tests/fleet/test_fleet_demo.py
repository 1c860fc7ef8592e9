"""`make fleet-demo`, with one subject and one step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import fleet_demo


@pytest.mark.heavy
def test_the_demo_of_the_fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", str(tmp_path), "--subjects", "1", "--steps", "1", "--no-browser"]
    fleet_demo.main(words)
    assert "1 of 1 jobs done" in (tmp_path / "report.html").read_text()
    assert len(list((tmp_path / "results").rglob("pictures/*.png"))) == 1
    capsys.readouterr()
    fleet_demo.main(words)
    assert "known  1" in capsys.readouterr().out


def test_subjects_differ_in_colour_alone(tmp_path: Path) -> None:
    from PIL import Image

    for number in (0, 1):
        fleet_demo.draw_subject(tmp_path / str(number), number)
    first, second = (Image.open(tmp_path / name / "0.png") for name in "01")
    assert first.tobytes() != second.tobytes()
    assert first.getpixel((0, 0)) == second.getpixel((0, 0))  # the background
    assert len(list((tmp_path / "0").glob("*.txt"))) == fleet_demo.PHOTOS
