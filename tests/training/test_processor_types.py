"""bf16 and fp16 on a CPU with and without instructions for them; `processors` pretends each wherever the tests run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import processors
import pytest
import torch

from maquette import families
from maquette.config import TrainConfig
from maquette.events import Event
from maquette.fast import packed
from maquette.stages import generate, train
from tests.training.interrupted import make_photos

VALUES: dict[str, Any] = {
    "subject": "zkw disc", "batch_size": 1, "steps": 2, "sample_prompts": [], "device": "cpu",
    "lr_scheduler": "constant", "optimizer": "sgd", "learning_rate": 1e-3,
}  # fmt: skip
TOLD = "This processor has no instructions for {}: everything is computed in fp32"


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photos(tmp_path_factory.mktemp("types") / "photos")


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def warnings(events: list[Event]) -> list[str]:
    return [event.data["message"] for event in events if event.kind == "warning"]


KINDS = [
    ("bf16", "lora"),
    pytest.param("bf16", "dreambooth", marks=pytest.mark.heavy),
    pytest.param("fp16", "lora", marks=pytest.mark.heavy),
]


@pytest.mark.parametrize(("dtype", "method"), KINDS)
def test_a_run_in_half_precision_learns_with_either_answer(
    dtype: str, method: str, has_bf16: bool, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same losses, and a run that says and records what it computed in."""
    found: list[int] = []
    install = packed.install
    monkeypatch.setattr(packed, "install", lambda *given: found.append(install(*given)) or found[-1])
    rank = {"rank": 2} if method == "lora" else {}
    values = {**VALUES, **rank, "photos": photos, "method": method}
    events: list[Event] = []
    result = train.run(TrainConfig.parse({**values, "out": tmp_path / "half", "dtype": dtype}), events.append)
    assert result.status == "finished"
    computed = dtype if has_bf16 else "fp32"
    assert TrainConfig.read(tmp_path / "half/run.toml").dtype == computed
    told = warnings(events)
    assert told == [] if has_bf16 else len(told) == 1 and told[0].startswith(TOLD.format(dtype))
    if method == "lora":  # fp16 is never laid out, fp32 is anywhere
        assert (found[0] > 0) == (computed != "fp16")
    train.run(TrainConfig.parse({**values, "out": tmp_path / "whole", "dtype": "fp32"}))
    # bf16 has 8 bits: one rounding is 2^-8 of a number; those of some 50 layers add up as their root
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "whole"), rel=2**-8 * 50**0.5)


def test_a_run_goes_on_where_its_type_is_lacking(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    with monkeypatch.context() as newer:
        processors.pretend(newer, True)
        train.run(TrainConfig.parse({**VALUES, "photos": photos, "out": tmp_path / "run", "dtype": "auto"}))
    assert TrainConfig.read(tmp_path / "run/run.toml").dtype == "bf16"
    processors.pretend(monkeypatch, False)
    result = train.resume(tmp_path / "run", {"steps": 3}, events.append)
    assert result.status == "finished" and len(losses(tmp_path / "run")) == 3
    assert any(message.startswith(TOLD.format("bf16")) for message in warnings(events))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_pictures_are_drawn_with_either_answer(
    dtype: str, has_bf16: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[torch.dtype] = []
    load = families.load
    monkeypatch.setattr(families, "load", lambda *a, **k: loaded.append(a[1]) or load(*a, **k))
    values = {"prompt": "a cat", "out": tmp_path, "steps": 1, "dtype": dtype, "width": 32, "height": 32}
    values["device"] = "cpu"
    result = generate.run(generate.GenerateConfig.parse(values))
    assert len(result.paths) == 1
    assert loaded == [{"bf16": torch.bfloat16, "fp16": torch.float16}[dtype] if has_bf16 else torch.float32]
    assert any(warning.startswith(TOLD.format(dtype)) for warning in result.warnings) != has_bf16
