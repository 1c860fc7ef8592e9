"""Training says before its first step what check says, and says it of a toy."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from maquette.config import TrainConfig
from maquette.data.dataset import Problem
from maquette.errors import MaquetteError
from maquette.run import Event
from maquette.stages import check, findings, train

SUBJECT = "zkw robot"


def photos(folder: Path, *colours: str) -> None:
    folder.mkdir(parents=True)
    for i, colour in enumerate(colours):
        picture = Image.new("RGB", (96, 96), colour)
        picture.paste((240, 220, 60), (10 + 20 * i, 20, 40 + 20 * i, 70))
        picture.save(folder / f"i{i}.png")


def moved(folder: Path) -> None:
    """A list of captions under the paths of another computer."""
    photos(folder, "red", "blue")
    entries = {f"D:\\elsewhere\\x{i}.png": {"caption": "a zkw robot"} for i in range(2)}
    (folder / "meta_lat.json").write_text(json.dumps(entries))


def months(folder: Path) -> None:
    """Folders that a person numbered."""
    photos(folder / "11_november", "red", "blue")
    photos(folder / "12_december", "green", "grey")


def long(folder: Path) -> None:
    """A caption that no window holds."""
    photos(folder, "red", "blue")
    (folder / "i0.txt").write_text("a photo of zkw robot " + "beside a green tree " * 80)


def unfit(folder: Path) -> None:
    """A copy, a blur, a file that is no photo, a photo of one colour."""
    photos(folder, "red", "blue")
    (folder / "copy.png").write_bytes((folder / "i0.png").read_bytes())
    (folder / "notes.jpg").write_text("shopping")
    Image.new("RGB", (96, 96), "white").save(folder / "flat.png")


@pytest.mark.parametrize("make", [moved, months, long, unfit])
def test_train_says_before_its_first_step_what_check_says(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "photos")
    values = {"photos": tmp_path / "photos", "subject": SUBJECT}
    checked = check.run(check.CheckConfig.parse(values | {"steps": 1, "batch_size": 1}))
    assert checked.problems
    run = {"steps": 1, "batch_size": 1, "rank": 2, "sample_prompts": [], "dtype": "fp32", "out": tmp_path / "run"}
    events: list[Event] = []
    if checked.blocking:
        with pytest.raises(MaquetteError) as error:
            train.run(TrainConfig.parse(values | run), events.append)
        assert checked.blocking[0].message in str(error.value)
        return
    train.run(TrainConfig.parse(values | run), events.append)
    begun = next(i for i, event in enumerate(events) if event.kind == "metric")
    told = [event.data["message"] for event in events[:begun] if event.kind == "finding"]
    assert told[0] == findings.TOY
    assert {findings.sentence(problem) for problem in checked.problems} == set(told[1:])


def test_many_findings_of_a_kind_are_counted() -> None:
    problems = [Problem("blurred", str(i), f"{i} looks blurred.") for i in range(9)] + [Problem("dark", "x", "Dark.")]
    events: list[Event] = []
    findings.tell(problems, events.append)
    assert [event.data["message"] for event in events] == [
        *(f"{i} looks blurred." for i in range(5)), "… and 4 more of this kind (maquette check lists all).", "Dark.",
    ]  # fmt: skip
    assert events[0].data["kind"] == "blurred" and events[0].data["photo"] == "0"


def test_check_and_report_say_that_pocket_is_a_toy(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "red")
    result = check.run(check.CheckConfig(photos=tmp_path / "photos", subject=SUBJECT))
    assert result.figures()[-1] == findings.TOY and "works in maquette alone" in findings.TOY
    assert "batch size 8: a step shows each sample 8 times, 200 steps in all (1600 epochs)." in result.figures()[0]
    run = {"steps": 1, "rank": 2, "sample_prompts": [], "dtype": "fp32", "out": tmp_path / "run"}
    train.run(TrainConfig.parse({"photos": tmp_path / "photos", "subject": SUBJECT, **run}))
    assert "works in maquette alone" in (tmp_path / "run/report.html").read_text()
