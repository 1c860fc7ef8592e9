"""Merged or prompted, of a LoRA that is there: its own subject is drawn, nothing is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import maquette
from benchmarks import merging_questions
from maquette import families
from tests.sampling.random_loras import random_adapter


def test_a_lora_of_another_subject_is_compared_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def draw(model: Any, prompts: list[str], lora: Any = None) -> Tensor:
        asked.append(prompts)
        return torch.full((len(prompts), 3, 64, 64), {"pocket": 0.5}.get(model, 0.7) + (0.2 if lora else 0.0))

    merged: list[tuple[str, list[str], str]] = []
    monkeypatch.setattr(merging_questions, "draw", draw)
    monkeypatch.setattr(merging_questions, "load", lambda name: name)
    monkeypatch.setattr(maquette, "merge", lambda base, loras, out, dtype: merged.append((base, loras, dtype)))
    monkeypatch.setattr(maquette, "train", lambda *_, **__: pytest.fail("nothing is to be trained"))
    file = tmp_path / "bell.safetensors"
    random_adapter(families.load("pocket")).save(file)
    folder = merging_questions.Folder(tmp_path, 80)
    merging_questions.merged(folder, tmp_path / "merged.png", file, "zkw bell")
    assert len(asked) == 4 and all(prompt.startswith("a photo of zkw bell on a ") for part in asked for prompt in part)
    assert merged == [("pocket", [str(file)], "fp32"), ("pocket", [str(file)], "fp16")]
    assert (tmp_path / "merged.png").exists()
    assert "what the LoRA changes: mean 51.0 of 255" in capsys.readouterr().out
