"""Another process watches a run by its events.jsonl and ends it by a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import maquette
from maquette.errors import MaquetteError
from maquette.events import EVENT_DATA, Event
from maquette.run_folder import RunFolder
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 2, "rank": 2, "dtype": "fp32", "steps": 5, "sample_prompts": [],
}  # fmt: skip


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]


def test_a_file_stops_the_run_and_it_ends_in_the_same_bytes(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    whole = maquette.train(photos, out=tmp_path / "whole/disc", **VALUES)
    run = tmp_path / "stopped/disc"

    def another_process(event: Event) -> None:
        if event.kind == "metric" and event.data["step"] == 2:
            (run / "stop").touch()

    first = maquette.train(photos, another_process, out=run, **VALUES)
    assert first.status == "stopped" and 2 <= first.step <= 3 and first.checkpoints
    assert not (run / "stop").exists()
    told = lines(run)
    assert told[-1]["kind"] == "done" and told[-1]["data"]["status"] == "stopped"
    (run / "stop").touch()  # left over: it does not end what is begun anew
    second = maquette.resume(run)
    assert second.status == "finished" and second.file and whole.file
    assert Path(second.file).read_bytes() == Path(whole.file).read_bytes()
    steps = [line["data"]["step"] for line in lines(run) if line["kind"] == "metric"]
    assert steps == [1, 2, 3, 4, 5]


def test_every_event_has_the_keys_of_its_kind(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (photos / "broken.png").write_bytes(b"")
    heard: list[Event] = []
    maquette.train(
        photos,
        heard.append,
        out=tmp_path / "disc",
        **VALUES | {"steps": 2, "sample_prompts": ["a disc"], "sample_steps": 1},
    )
    told = lines(tmp_path / "disc")
    assert [line["kind"] for line in told] == [event.kind for event in heard][-len(told) :]
    assert {"metric", "sample", "saved", "finding", "done"} <= {line["kind"] for line in told}
    for line in told:
        assert set(line) == {"time", "kind", "data"} and line["time"] > 1_700_000_000
        if kind := EVENT_DATA.get(line["kind"]):
            known, needed = kind.__annotations__.keys(), getattr(kind, "__required_keys__")  # noqa: B009
            assert needed <= line["data"].keys() <= known, line


def test_errors_are_told_and_a_line_that_a_kill_cut_off_stays_apart(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.events.write_bytes(b'{"time": 1, "kin')
    with pytest.raises(MaquetteError), folder.recording() as tell:
        tell(Event("metric", {"loss": float("nan")}))
        raise MaquetteError("The disk is full.")
    cut, *whole = folder.events.read_text().splitlines()
    assert cut == '{"time": 1, "kin'
    assert [(line["kind"], line["data"]) for line in map(json.loads, whole)] == [
        ("metric", {"loss": "nan"}),
        ("failed", {"message": "The disk is full."}),
    ]


def test_a_file_asks_for_a_checkpoint_now_and_the_run_ends_in_the_same_bytes(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    values = VALUES | {"sample_prompts": ["a photo of zkw disc"], "sample_steps": 1, "save_every_steps": 5}
    plain = maquette.train(photos, out=tmp_path / "plain/disc", **values)
    run = tmp_path / "asked/disc"

    def ask(event: Event) -> None:
        if event.kind == "metric" and event.data["step"] == 2:
            (run / "sample").touch()

    asked = maquette.train(photos, ask, out=run, **values)
    extra = {Path(file).name for file in asked.checkpoints} - {Path(file).name for file in plain.checkpoints}
    assert extra <= {"disc-000002.safetensors", "disc-000003.safetensors"} and len(extra) == 1
    step = extra.pop().removeprefix("disc-").removesuffix(".safetensors")
    assert (run / "samples" / step / "0.png").exists()
    assert not (run / "sample").exists()
    assert asked.status == "finished" and asked.step == 5
    assert Path(asked.checkpoints[-1]).read_bytes() == Path(plain.checkpoints[-1]).read_bytes()
