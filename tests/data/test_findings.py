"""Training says before its first step what check says, and says it of a toy."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
import torch
from PIL import Image

from maquette.config import TrainConfig
from maquette.data import findings
from maquette.data.dataset import Problem
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.families import checkpoint
from maquette.families.pocket.spec import POCKET, WEIGHTS
from maquette.formats import safetensors
from maquette.stages import check, train

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


def lora(folder: Path) -> str:
    safetensors.save({"lora_unet_x.alpha": torch.zeros(1)}, folder / "lora.safetensors")
    return str(folder / "lora.safetensors")


def garbage(folder: Path) -> str:
    (folder / "base.ckpt").write_bytes(b"\x80\x02nonsense" * 20)
    return str(folder / "base.ckpt")


def page(folder: Path) -> str:
    (folder / "base.safetensors").write_text("<html>Not found</html>" * 20)
    return str(folder / "base.safetensors")


def headless(folder: Path) -> str:
    """Pocket without its VAE."""
    model = checkpoint.read_folder(WEIGHTS, POCKET)
    tensors = {f"model.diffusion_model.{name}": tensor for name, tensor in model.parts["unet"].items()}
    safetensors.save(tensors, folder / "headless.safetensors")
    return str(folder / "headless.safetensors")


BASES: list[Callable[[Path], str]] = [
    lora, garbage, page, headless, lambda folder: str(folder), lambda folder: str(folder / "none.safetensors"),
    lambda folder: "hf:nobody", lambda folder: "hf:nobody/nothing",
]  # fmt: skip


@pytest.mark.parametrize("make", BASES)
def test_check_and_train_judge_a_base_in_the_same_words(
    make: Callable[[Path], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", absent)
    photos(tmp_path / "photos", "red")
    base = make(tmp_path)
    values = {"photos": tmp_path / "photos", "subject": SUBJECT, "base": base}
    told = []
    for attempt in (
        lambda: check.run(check.CheckConfig.parse(values)),
        lambda: train.run(TrainConfig.parse(values | {"out": tmp_path / "run"})),
    ):
        with pytest.raises(MaquetteError) as error:
            attempt()
        told.append(str(error.value))
    assert told[0] == told[1] and base in told[0]


def test_check_takes_a_base_of_the_hub_as_train_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(WEIGHTS))
    photos(tmp_path / "photos", "red")
    result = check.run(check.CheckConfig(photos=tmp_path / "photos", subject=SUBJECT, base="hf:somebody/some-model"))
    assert result.costs.file_bytes > 10_000 and findings.TOY not in result.figures()
