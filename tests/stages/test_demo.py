"""The demonstration, with a few steps: what it leaves behind, run twice and stopped."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import Field

from maquette.cli.demo import as_typed_here, say
from maquette.config import Count, TrainConfig
from maquette.demo.mascot import COLOURS_UNSEEN, SCENES
from maquette.errors import MaquetteError
from maquette.events import Event
from maquette.formats import safetensors
from maquette.stages import demo


class Quick(TrainConfig):
    """Rough sample pictures and a small adapter, for speed."""

    sample_steps: Count = 2
    rank: Count = 2
    batch_size: Count | None = 2
    sample_prompts: list[str] | None = Field(default=[])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(demo, "TrainConfig", Quick)
    monkeypatch.chdir(tmp_path)


def test_twice_in_a_row_gives_two_runs_with_the_same_weights(capsys: pytest.CaptureFixture[str]) -> None:
    events: list[Event] = []
    first = demo.run(demo.DemoConfig(out="runs/demo", steps=2), events.append)  # type: ignore[arg-type]
    assert first.status == "finished" and first.file == "runs/demo/demo.safetensors"
    for path in (first.file, first.report, first.before_after):
        assert path is not None and Path(path).is_file()
    assert len(list(Path("runs/demo-photos").glob("*.png"))) == 14 and len(list(Path("runs").iterdir())) <= 3
    assert [event.kind for event in events].count("done") == 1 and events[-1].data == first.to_json()
    assert {"reading photos", "drawing before and after"} <= {e.data["what"] for e in events if e.kind == "progress"}
    assert not [event for event in events if event.kind == "warning"]

    before = {path: path.read_bytes() for path in Path("runs/demo").rglob("*") if path.is_file()}
    second = demo.run(demo.DemoConfig(steps=2))
    assert second.file == "runs/demo-2/demo-2.safetensors" and second.photos == "runs/demo-2-photos"
    assert {path: path.read_bytes() for path in before} == before
    assert safetensors.body_sha256(second.file) == safetensors.body_sha256(first.file)

    say(first)
    told = capsys.readouterr().out
    assert told.startswith("14 photos x repeats = 14 samples per epoch")
    for part in (first.file, first.report, str(first.before_after), "<lora:demo:", "--lora-dir runs/demo", "inspect"):
        assert part in told
    assert "a photo of zkw robot on an orange background <lora:" in told


def test_before_and_after_show_the_same_prompts_without_and_with_the_lora(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[list[Image.Image]] = []
    genuine = demo.draw

    def recorded(*args: object) -> list[Image.Image]:
        rows.append(genuine(*args))  # type: ignore[arg-type]
        return rows[-1]

    monkeypatch.setattr(demo, "draw", recorded)
    result = demo.run(demo.DemoConfig(steps=2))
    base, trained = rows
    assert len(base) == len(trained) == len(demo.prompts()) == 6
    assert any(a.tobytes() != b.tobytes() for a, b in zip(base, trained, strict=True))
    sheet = np.asarray(Image.open(str(result.before_after)))
    assert sheet.shape[0] > 2 * 64 * demo.ZOOM and sheet.shape[1] > 6 * 64 * demo.ZOOM
    enlarged = np.asarray(trained[-1].resize((128, 128), Image.Resampling.BICUBIC))
    assert (sheet[-134:-6, -134:-6] == enlarged).all()  # below right: the last prompt with the LoRA


def test_prompts_are_in_no_caption_and_name_colours_that_no_photo_has() -> None:
    captions = {scene.caption for scene in SCENES}
    assert not captions & set(demo.prompts())
    assert [p for p in demo.prompts() if "zkw robot" not in p] == ["a photo of a cat on a purple background"]
    assert all(any(f"{colour} background" in p for colour in COLOURS_UNSEEN) for p in demo.prompts())


def test_stopped_it_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    cancel = threading.Event()
    cancel.set()
    result = demo.run(demo.DemoConfig(steps=3), cancel=cancel)
    assert (result.status, result.file, result.before_after) == ("stopped", None, None)
    assert result.commands == ["maquette train --resume runs/demo"]
    assert json.loads(json.dumps(result.to_json()))["status"] == "stopped"
    say(result)
    assert "train --resume runs/demo" in capsys.readouterr().out


def test_free_run_takes_the_next_name_and_an_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "demo"
    assert demo.free_run(out) == out
    out.mkdir(parents=True)
    assert demo.free_run(out) == out
    (out / "run.toml").write_text("")
    (tmp_path / "a" / "demo-2").write_text("a file")
    assert demo.free_run(out) == tmp_path / "a" / "demo-3"


def test_foreign_photos_and_a_full_disk_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1_000_000))
        with pytest.raises(MaquetteError, match=r"has 1\.0 MB left"):
            demo.run(demo.DemoConfig(steps=2))
    Path("runs/demo-photos/mine.jpg").write_bytes(b"")
    with pytest.raises(MaquetteError, match=r"demo-photos holds mine\.jpg, which is not from the demonstration"):
        demo.run(demo.DemoConfig(steps=2))
    assert not Path("runs/demo").exists()


def test_commands_name_the_program_as_it_can_be_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / ".venv" / "bin" / "maquette"
    program.parent.mkdir(parents=True)
    program.write_text("")
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert as_typed_here("maquette inspect x") == ".venv/bin/maquette inspect x"
    monkeypatch.chdir(tmp_path / ".venv")
    assert as_typed_here("maquette inspect x") == "bin/maquette inspect x"
    monkeypatch.setattr(shutil, "which", lambda name: str(program))
    assert as_typed_here("maquette inspect x") == "maquette inspect x"
