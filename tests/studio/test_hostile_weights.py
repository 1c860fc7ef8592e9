"""Weights in the studio's folders are read as made to do harm: no pickle runs, a broken file is told by name."""

from __future__ import annotations

import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.studio.conftest import Running


class Harm:
    """A pickle that writes a file when it is loaded as Python loads it."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    """Bases and LoRAs: pickles that would write `ran`, and safetensors files that are cut or lie about their header."""
    for name in ("bases", "loras"):
        folder = tmp_path / name
        folder.mkdir()
        for ending in ("ckpt", "pt", "bin"):
            (folder / f"evil-{ending}.{ending}").write_bytes(pickle.dumps({"state_dict": Harm(tmp_path / "ran")}))
        (folder / "cut.safetensors").write_bytes(struct.pack("<Q", 500) + b'{"lora_unet_x.lora_down.weight":{"dtype":')
        (folder / "lying.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    return {"bases": tmp_path / "bases", "loras": [tmp_path / "loras"]}


def test_nothing_in_a_folder_of_weights_runs_or_brings_the_server_down(
    serve: Callable[..., Running], folders: dict[str, Any], tmp_path: Path
) -> None:
    one = serve(real=True, api=True, **folders)
    assert not (tmp_path / "ran").exists()
    for question in ("sd-models", "loras", "refresh-checkpoints", "refresh-loras"):
        asked = one.client.post if question.startswith("refresh") else one.client.get
        assert asked(f"/sdapi/v1/{question}").status_code == 200
    titles = [model["title"] for model in one.client.get("/sdapi/v1/sd-models").json()]
    for name in ("evil-ckpt", "cut", "lying", *titles):
        answer = one.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": name})
        assert answer.status_code < 500, answer.text
    assert one.client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "pocket"}).status_code == 200
    for name in ("evil-ckpt", "evil-pt", "evil-bin", "cut", "lying"):
        request = {"prompt": f"a robot <lora:{name}:1>", "steps": 1, "width": 64, "height": 64}
        answer = one.client.post("/sdapi/v1/txt2img", json=request)
        refused = name.startswith("evil")  # a broken file is no LoRA: drawn without it, with a warning
        assert answer.status_code == (422 if refused else 200), answer.text
        assert (name if refused else f"There is no LoRA '{name}'") in answer.text and "Traceback" not in answer.text
    assert not (tmp_path / "ran").exists()
    assert one.client.get("/api/projects").status_code == 200
